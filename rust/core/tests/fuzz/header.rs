//! Headers of safetensors files, checked against the `safetensors` crate's own reader.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;

use mergeplan_core::checkpoint::header;
use mergeplan_core::Error;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use crate::json::Json;
use crate::mutate::{apply, apply_bytes, byte_changes, changes, ByteChange, Change};
use crate::run::{bounded, fuzz};

const DTYPES: &[(&str, u128)] = &[
    ("BOOL", 8),
    ("U8", 8),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("I16", 16),
    ("U16", 16),
    ("F16", 16),
    ("BF16", 16),
    ("I32", 32),
    ("U32", 32),
    ("F32", 32),
    ("C64", 64),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
];
/// Longer files exist only as a number: the parser sees the header and the length.
const LARGEST_DATA: u64 = 1 << 16;

/// A valid file and what is changed in it.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// Number in the first tensor's name.
    pub first: usize,
    tensors: Vec<(&'static str, Vec<usize>)>,
    metadata: bool,
    changes: Vec<Change>,
    /// Give every tensor the offsets that its changed shape and dtype need.
    repair: bool,
    byte_changes: Vec<ByteChange>,
    /// Added to the length prefix and to the length of the data.
    prefix: i64,
    data: i64,
}

/// A file: its first bytes, and the length of all.
pub struct File {
    pub bytes: Vec<u8>,
    pub length: u64,
}

pub fn mutants() -> impl Strategy<Value = Mutant> {
    let dtype = select(DTYPES).prop_map(|(name, _)| name);
    let shape = vec(select(&[0_usize, 1, 2, 3, 4, 8][..]), 0..4);
    let off = || prop_oneof![12 => Just(0_i64), 1 => -9_i64..9, 1 => any::<i64>()];
    (
        vec((dtype, shape), 0..5),
        any::<bool>(),
        changes(),
        any::<bool>(),
        byte_changes(),
        off(),
        off(),
    )
        .prop_map(|(tensors, metadata, changes, repair, byte_changes, prefix, data)| Mutant {
            first: 0,
            tensors,
            metadata,
            changes,
            repair,
            byte_changes,
            prefix,
            data,
        })
}

impl Mutant {
    /// Names of the tensors before any change.
    pub fn names(&self) -> impl Iterator<Item = String> {
        (self.first..self.first + self.tensors.len()).map(|i| format!("w.{i}"))
    }

    pub fn unchanged(mut self) -> Self {
        self.changes.clear();
        self.byte_changes.clear();
        (self.prefix, self.data) = (0, 0);
        self
    }

    pub fn file(&self) -> File {
        let mut fields = vec![];
        if self.metadata {
            fields
                .push((r#""__metadata__""#.into(), Json::object([("format", Json::string("pt"))])));
        }
        for (i, (dtype, shape)) in self.tensors.iter().enumerate() {
            let fields_of = [
                ("dtype", Json::string(dtype)),
                ("shape", Json::array(shape)),
                ("data_offsets", Json::array([0, 0])),
            ];
            fields.push((format!("\"w.{}\"", self.first + i), Json::object(fields_of)));
        }
        let mut document = Json::Object(fields);
        let mut data = repair(&mut document);
        for change in &self.changes {
            apply(&mut document, change);
        }
        if self.repair {
            data = repair(&mut document);
        }
        let mut json = document.text().into_bytes();
        self.byte_changes.iter().for_each(|change| apply_bytes(&mut json, change));

        let prefix = (json.len() as u64).wrapping_add_signed(self.prefix);
        let mut bytes = prefix.to_le_bytes().to_vec();
        bytes.append(&mut json);
        let data = data.wrapping_add_signed(self.data);
        let length = (bytes.len() as u64).saturating_add(data);
        if data <= LARGEST_DATA {
            bytes.resize(length as usize, 7);
        }
        File { bytes, length }
    }
}

/// Give tensors that have a dtype and a shape their offsets, in order; returns their end.
fn repair(document: &mut Json) -> u64 {
    let Json::Object(tensors) = document else { return 0 };
    let mut end = 0_u64;
    for (_, tensor) in tensors {
        let Some(bytes) = byte_length(tensor) else { continue };
        let Some(stop) = end.checked_add(bytes) else { continue };
        let Json::Object(fields) = tensor else { continue };
        if let Some((_, offsets)) = fields.iter_mut().find(|(key, _)| key == "\"data_offsets\"") {
            *offsets = Json::array([end, stop]);
            end = stop;
        }
    }
    end
}

fn byte_length(tensor: &Json) -> Option<u64> {
    let (Json::Token(dtype), Json::Array(shape)) = (tensor.get("dtype")?, tensor.get("shape")?)
    else {
        return None;
    };
    let (_, bits) = DTYPES.iter().find(|(name, _)| dtype.trim_matches('"') == *name)?;
    let bits = shape.iter().try_fold(*bits, |n, side| match side {
        Json::Token(text) => n.checked_mul(text.parse().ok()?),
        _ => None,
    })?;
    u64::try_from(bits / 8).ok()
}

/// Read a file's header as a checkpoint does; the offsets count from the end of the header.
pub fn read(file: &File) -> Result<(usize, Vec<(String, TensorInfo)>), Error> {
    let path = Path::new("mutant.safetensors");
    let prefix = file.bytes.first_chunk::<8>().copied().unwrap_or([0xff; 8]);
    let json_bytes = header::json_length(path, prefix, file.length)? as usize;
    // Where the file is only a length, so is a header that reaches beyond its first bytes.
    let Some(json) = file.bytes.get(8..8 + json_bytes) else {
        return Err(Error::HeaderJson { path: path.into(), reason: "not drawn".into() });
    };
    Ok((json_bytes, header::parse(path, json, file.length)?))
}

/// The tensors that the `safetensors` crate finds, where it takes the file.
fn by_the_crate(file: &File) -> Option<BTreeMap<String, TensorInfo>> {
    let owned = |metadata: Metadata| {
        metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect()
    };
    // Its own sum of offsets and header overflows for tensors beyond the address space.
    let read = || {
        if file.bytes.len() as u64 == file.length {
            let (_, metadata) = SafeTensors::read_metadata(&file.bytes).ok()?;
            return Some(owned(metadata));
        }
        let json_bytes = u64::from_le_bytes(*file.bytes.first_chunk()?);
        let json = file.bytes.get(8..usize::try_from(json_bytes).ok()?.checked_add(8)?)?;
        let metadata: Metadata = serde_json::from_slice(json).ok()?;
        let length = (metadata.data_len() as u64).checked_add(json_bytes)?.checked_add(8)?;
        (length == file.length).then(|| owned(metadata))
    };
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

/// Whether the file was accepted; panics where a bound or an invariant does not hold.
pub fn check(mutant: &Mutant) -> bool {
    let file = mutant.file();
    let result = bounded(file.bytes.len(), || read(&file));
    let theirs = by_the_crate(&file);
    let changed = !(mutant.changes.is_empty() && mutant.byte_changes.is_empty())
        || (mutant.prefix, mutant.data) != (0, 0);
    match &result {
        Ok((json_bytes, tensors)) => {
            let theirs = theirs.expect("accepted a file that the safetensors crate refuses");
            check_tensors(*json_bytes, tensors, file.length);
            assert_eq!(tensors.len(), theirs.len());
            for (name, info) in tensors {
                let other = &theirs[name];
                assert_eq!(
                    (info.dtype, &info.shape, info.data_offsets),
                    (other.dtype, &other.shape, other.data_offsets)
                );
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 2000, "a message of {} bytes", text.len());
            assert!(!text.contains(char::is_control), "a raw control character: {text:?}");
            let stricter =
                ["stands twice", "invalid type: sequence", "more than 2^63", "not drawn", "axes"];
            assert!(
                theirs.is_none() || stricter.iter().any(|reason| text.contains(reason)),
                "refused a file that the safetensors crate takes: {text}"
            );
            let odd_bits = matches!(error, Error::TensorBytes { .. });
            assert!(changed || odd_bits, "refused a valid file: {text}");
        }
    }
    result.is_ok()
}

/// Every tensor's bytes lie inside the file, without gap or overlap, and are what its shape needs.
pub fn check_tensors(json_bytes: usize, tensors: &[(String, TensorInfo)], length: u64) {
    let mut end = 0;
    for (_, info) in tensors {
        let (start, stop) = info.data_offsets;
        assert_eq!(start, end, "a gap or an overlap");
        assert_eq!(elements(&info.shape) * bits(info.dtype), 8 * (stop - start) as u128);
        let _: usize = info.shape.iter().product();
        end = stop;
    }
    assert_eq!(8 + json_bytes as u128 + end as u128, u128::from(length));
}

pub fn elements(shape: &[usize]) -> u128 {
    shape.iter().map(|&side| side as u128).product()
}

pub fn bits(dtype: Dtype) -> u128 {
    dtype.bitsize() as u128
}

#[test]
fn headers() {
    fuzz("headers", 0.5, &mutants(), check, |mutant| mutant.file().bytes);
}
