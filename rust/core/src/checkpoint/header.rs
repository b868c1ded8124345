//! The header of one safetensors file, checked in full before any tensor is touched.
//!
//! The `safetensors` crate parses headers too, but its errors name neither the file nor what was
//! expected, and it lets the last of two tensors with one name win.

use std::path::Path;

use safetensors::tensor::TensorInfo;

use crate::checkpoint::entries::Tensors;
use crate::error::{readable, Error, Result};
use crate::work::check_memory;

/// Bytes of the length prefix.
pub(crate) const PREFIX: u64 = 8;
/// The format's own bound on the header.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// Memory that parsing takes for each byte, at the most; `tests/fuzz/bombs.rs` holds that.
const MOST_TIMES: u64 = 12;

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
    let invalid = |reason: &str| Error::HeaderJson { path: path.into(), reason: readable(reason) };
    let text = std::str::from_utf8(json).map_err(|error| invalid(&error.to_string()))?;
    check_memory(json.len() as u64 * MOST_TIMES)?;
    let Tensors(mut tensors) =
        serde_json::from_str(text).map_err(|error| invalid(&error.to_string()))?;
    // Sorted twice rather than with a set of names beside them: a header may hold millions.
    tensors.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(twins) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(invalid(&format!("`{}` stands twice", readable(&twins[0].0))));
    }
    tensors.sort_unstable_by(|(a_name, a), (b_name, b)| {
        a.data_offsets.cmp(&b.data_offsets).then_with(|| a_name.cmp(b_name))
    });

    let mut end = 0_u64;
    for (name, info) in &tensors {
        let (start, stop) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if start != end {
            return Err(Error::TensorOffset {
                path: path.into(),
                tensor: readable(name),
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
                tensor: readable(name),
                expected: words(expected, "no whole number, or more than 2^63"),
                found: words(found, "a negative number"),
            });
        }
        end = stop;
    }
    // Saturated only where it cannot be the length of any file.
    let expected = (PREFIX + json.len() as u64).saturating_add(end);
    if expected != file_bytes {
        return Err(Error::FileLength { path: path.into(), expected, found: file_bytes });
    }
    Ok(tensors)
}

fn byte_length(info: &TensorInfo) -> Option<u64> {
    let elements = info.shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side))?;
    let bits = (elements as u64).checked_mul(info.dtype.bitsize() as u64)?;
    (bits % 8 == 0 && bits < 1 << 63).then_some(bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::entries::MAX_TENSORS;

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

    /// Found by fuzzing: files that the `safetensors` crate refuses and this reader took.
    #[test]
    fn what_the_format_forbids_is_refused() {
        const A: &str = r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#;
        for json in [
            r#"{"__metadata__":0}"#.to_owned(),
            r#"{"__metadata__":{"format":1}}"#.to_owned(),
            r#"{"__metadata__":{},"__metadata__":{}}"#.to_owned(),
            format!(r#"{{"a":{{{A},"shape":[1]}}}}"#),
            r#"{"a":["F32",[1],[0,4]]}"#.to_owned(),
            format!(r#"{{"a":{{{A},"more":1e400}}}}"#),
            format!(r#"{{"a":{{{A},"more":"\ud800"}}}}"#),
            format!(r#"{{"a":{{{A},"more":{}1{}}}}}"#, "[".repeat(200), "]".repeat(200)),
        ] {
            let data_bytes = if json.contains("F32") { 4 } else { 0 };
            let result = parse_str(&json, data_bytes);
            assert!(matches!(result, Err(Error::HeaderJson { .. })), "{json}");
        }
    }

    #[test]
    fn endless_tensors_and_axes_are_refused() {
        let tensor = |i| format!(r#""{i}":{{"dtype":"F4","shape":[0],"data_offsets":[0,0]}}"#);
        let tensors: Vec<String> = (0..=MAX_TENSORS).map(tensor).collect();
        let error = parse_str(&format!("{{{}}}", tensors.join(",")), 0).unwrap_err().to_string();
        assert!(error.contains("more than 500000 tensors"), "{error}");
        let shape = vec!["0"; 65].join(",");
        let json = format!(r#"{{"a":{{"dtype":"F4","shape":[{shape}],"data_offsets":[0,0]}}}}"#);
        let error = parse_str(&json, 0).unwrap_err().to_string();
        assert!(error.contains("more than 64 axes"), "{error}");
    }

    #[test]
    fn unknown_fields_and_no_metadata_are_no_fault() {
        let json = r#"{"__metadata__":null,
                       "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":[{"b":[1,"c"]}]}}"#;
        assert_eq!(parse_str(json, 4).unwrap().len(), 1);
    }

    /// Found by fuzzing: the sum of the lengths overflowed.
    #[test]
    fn tensors_that_together_exceed_the_address_space_are_refused() {
        let step = 1_u64 << 59;
        let tensor = |i: u64| {
            let (start, stop) = (i * step, (i + 1).saturating_mul(step));
            format!(
                r#""{i}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{stop}]}}"#,
                stop - start
            )
        };
        let json = format!("{{{}}}", (0..32).map(tensor).collect::<Vec<_>>().join(","));
        let error = parse_str(&json, 0).unwrap_err();
        assert!(matches!(error, Error::FileLength { expected: u64::MAX, .. }), "{error}");
    }

    #[test]
    fn tensors_without_elements_share_an_offset() {
        let json = r#"{"c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                       "b":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},
                       "a":{"dtype":"F64","shape":[3,0],"data_offsets":[0,0]},
                       "d":{"dtype":"F4","shape":[0],"data_offsets":[4,4]}}"#;
        let tensors = parse_str(json, 4).unwrap();
        let names: Vec<_> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_message_is_short_and_has_no_control_characters() {
        let name = format!("\\u001b[31m{}", "x".repeat(100_000));
        for json in [
            format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}}}"#),
            format!(r#"{{"{name}":{{"dtype":"{name}"}}}}"#),
        ] {
            let text = parse_str(&json, 4).unwrap_err().to_string();
            assert!(text.len() < 1000 && !text.contains(char::is_control), "{text:?}");
        }
    }
}
