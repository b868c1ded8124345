//! The header of one safetensors file, checked in full before any tensor is touched.
//!
//! The `safetensors` crate parses headers too, but its errors name neither the file nor what was
//! expected, and it lets the last of two tensors with one name win.

use std::fmt;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::error::{Error, Result};

/// Bytes of the length prefix.
pub const PREFIX: u64 = 8;
/// The format's own bound on the header.
const MAX_HEADER: u64 = 100_000_000;

/// Length of the JSON header, from the first eight bytes of a file of `file_bytes`.
pub fn json_length(path: &Path, prefix: [u8; 8], file_bytes: u64) -> Result<u64> {
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > MAX_HEADER || header_bytes > file_bytes.saturating_sub(PREFIX) {
        return Err(Error::HeaderLength { path: path.into(), header_bytes, file_bytes });
    }
    Ok(header_bytes)
}

/// Parse the JSON header and check every tensor's offsets against its shape, against each other and
/// against the length of the file.
///
/// Returns the tensors in the order of their data; offsets count from the end of the header.
pub fn parse(path: &Path, json: &[u8], file_bytes: u64) -> Result<Vec<(String, TensorInfo)>> {
    let invalid = |reason: String| Error::HeaderJson { path: path.into(), reason };
    let Entries(entries) =
        serde_json::from_slice(json).map_err(|error| invalid(error.to_string()))?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        if name == "__metadata__" {
            continue;
        }
        let info: TensorInfo = serde_json::from_value(value)
            .map_err(|error| invalid(format!("tensor `{name}`: {error}")))?;
        tensors.push((name, info));
    }
    tensors.sort_by_key(|(_, info)| info.data_offsets);

    let mut end = 0_u64;
    for (name, info) in &tensors {
        let (start, stop) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if start != end {
            return Err(Error::TensorOffset {
                path: path.into(),
                tensor: name.clone(),
                expected: end,
                found: start,
            });
        }
        let expected = byte_length(info);
        let found = stop.checked_sub(start);
        if expected.is_none() || expected != found {
            let words = |bytes: Option<u64>, otherwise: &str| {
                bytes.map_or_else(|| otherwise.to_owned(), |n| n.to_string())
            };
            return Err(Error::TensorBytes {
                path: path.into(),
                tensor: name.clone(),
                expected: words(expected, "no whole number, or more than 2^63"),
                found: words(found, "a negative number"),
            });
        }
        end = stop;
    }
    let expected = PREFIX + json.len() as u64 + end;
    if expected != file_bytes {
        return Err(Error::FileLength { path: path.into(), expected, found: file_bytes });
    }
    Ok(tensors)
}

fn byte_length(info: &TensorInfo) -> Option<u64> {
    let bits = info
        .shape
        .iter()
        .try_fold(info.dtype.bitsize() as u64, |n, &side| n.checked_mul(side as u64))?;
    (bits % 8 == 0 && bits < 1 << 63).then_some(bits / 8)
}

/// A JSON object as a list, so that a name that stands twice is seen.
struct Entries(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format!("`{name}` stands twice")));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_str(json: &str, data_bytes: u64) -> Result<Vec<(String, TensorInfo)>> {
        parse(Path::new("f"), json.as_bytes(), PREFIX + json.len() as u64 + data_bytes)
    }

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        let json = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                       "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let error = parse_str(json, 4).unwrap_err();
        assert!(
            matches!(&error, Error::HeaderJson { reason, .. } if reason.contains("`a` stands twice"))
        );
    }

    #[test]
    fn overlapping_tensors_are_refused() {
        let json = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                       "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        assert!(matches!(
            parse_str(json, 12).unwrap_err(),
            Error::TensorOffset { tensor, expected: 8, found: 4, .. } if tensor == "b"
        ));
    }

    #[test]
    fn a_truncated_file_says_how_much_is_missing() {
        let json = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
        assert!(matches!(
            parse_str(json, 10).unwrap_err(),
            Error::FileLength { expected, found, .. } if expected - found == 6
        ));
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        let json =
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,0]}}"#;
        assert!(matches!(parse_str(json, 0).unwrap_err(), Error::TensorBytes { .. }));
        let json = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}}"#;
        assert!(parse_str(json, 4).is_err());
        let json = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#;
        assert!(parse_str(json, 4).is_err());
    }

    #[test]
    fn a_header_longer_than_the_file_is_refused() {
        let error = json_length(Path::new("f"), 1000_u64.to_le_bytes(), 20).unwrap_err();
        assert!(matches!(error, Error::HeaderLength { header_bytes: 1000, file_bytes: 20, .. }));
        assert!(json_length(Path::new("f"), u64::MAX.to_le_bytes(), u64::MAX).is_err());
    }
}
