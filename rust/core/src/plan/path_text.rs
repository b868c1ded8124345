//! Paths in the JSON of a plan, which is text: of a byte that is no UTF-8 it has NUL, which no path
//! holds, and two hexadecimal digits.

use std::path::{Path, PathBuf};

use serde::{de, ser, Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    let text = text_of(path).ok_or_else(|| ser::Error::custom("a path that is no text"))?;
    text.serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(from)?;
    path_of(&text).ok_or_else(|| de::Error::custom("a path with NUL in it"))
}

/// The same of several.
pub(super) mod many {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        let texts: Option<Vec<String>> = paths.iter().map(|path| text_of(path)).collect();
        texts.ok_or_else(|| ser::Error::custom("a path that is no text"))?.serialize(to)
    }

    pub(crate) fn deserialize<'de, D>(from: D) -> Result<Vec<PathBuf>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(from)?;
        let paths: Option<Vec<PathBuf>> = texts.iter().map(|text| path_of(text)).collect();
        paths.ok_or_else(|| de::Error::custom("a path with NUL in it"))
    }
}

#[cfg(unix)]
fn text_of(path: &Path) -> Option<String> {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;

    let mut text = String::new();
    for piece in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(piece.valid());
        for byte in piece.invalid() {
            write!(text, "\0{byte:02x}").ok()?;
        }
    }
    Some(text)
}

#[cfg(unix)]
fn path_of(text: &str) -> Option<PathBuf> {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    let mut pieces = text.split('\0');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(not(unix))]
fn text_of(path: &Path) -> Option<String> {
    path.to_str().map(String::from)
}

#[cfg(not(unix))]
fn path_of(text: &str) -> Option<PathBuf> {
    (!text.contains('\0')).then(|| PathBuf::from(text))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn every_path_comes_back() {
        for bytes in [&b"/plain/\xc3\xa9"[..], b"/caf\xe9/x", b"\xff", b"", b"/\xed\xb3\xa9\x80"] {
            let path = Path::new(OsStr::from_bytes(bytes));
            let text = text_of(path).unwrap();
            assert_eq!(path_of(&text).unwrap(), path, "{text:?}");
        }
        assert_eq!(text_of(Path::new(OsStr::from_bytes(b"caf\xe9"))).unwrap(), "caf\0e9");
    }

    #[test]
    fn what_is_no_escape_is_refused() {
        for text in ["a\0", "a\0e", "a\0zz", "a\0é"] {
            assert!(path_of(text).is_none(), "{text:?}");
        }
    }
}
