//! JSON as text in a tree: objects may hold a key twice, numbers and strings may be any token.

use std::fmt::Write;

/// A value. Tokens and keys are raw text, strings with their quotes.
#[derive(Debug, Clone)]
pub enum Json {
    Token(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn token(text: impl ToString) -> Self {
        Self::Token(text.to_string())
    }

    /// A string without characters that need an escape.
    pub fn string(text: &str) -> Self {
        Self::Token(format!("\"{text}\""))
    }

    pub fn array<T: ToString>(items: impl IntoIterator<Item = T>) -> Self {
        Self::Array(items.into_iter().map(Self::token).collect())
    }

    pub fn object<const N: usize>(fields: [(&str, Json); N]) -> Self {
        Self::Object(fields.into_iter().map(|(key, value)| (quoted(key), value)).collect())
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Json::Token(text) => out.push_str(text),
            Json::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Json::Object(fields) => {
                out.push('{');
                for (i, (key, value)) in fields.iter().enumerate() {
                    write!(out, "{}{key}:", if i > 0 { "," } else { "" }).unwrap();
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// The value of a key, the last one where it stands twice.
    pub fn get(&self, key: &str) -> Option<&Json> {
        let Json::Object(fields) = self else { return None };
        let key = quoted(key);
        fields.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Number of values in the tree.
    pub fn count(&self) -> usize {
        1 + match self {
            Json::Token(_) => 0,
            Json::Array(items) => items.iter().map(Json::count).sum(),
            Json::Object(fields) => fields.iter().map(|(_, value)| value.count()).sum::<usize>(),
        }
    }

    /// Value number `at`, counted from the root in the order of the text.
    pub fn at(&mut self, at: usize) -> Option<&mut Json> {
        self.walk(&mut { at })
    }

    fn walk(&mut self, left: &mut usize) -> Option<&mut Json> {
        if *left == 0 {
            return Some(self);
        }
        *left -= 1;
        match self {
            Json::Token(_) => None,
            Json::Array(items) => items.iter_mut().find_map(|item| item.walk(left)),
            Json::Object(fields) => fields.iter_mut().find_map(|(_, value)| value.walk(left)),
        }
    }
}

fn quoted(key: &str) -> String {
    format!("\"{key}\"")
}
