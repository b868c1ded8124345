//! Memory that a caller lends for outputs, checked before any reference to it is made: two that
//! overlap would be undefined behaviour, and a write to a read-only page ends the process.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Some addresses, and the tensor that they are lent for.
#[derive(Debug, Clone)]
pub struct Lent<'a> {
    /// The tensor's name.
    pub tensor: &'a str,
    /// Its addresses.
    pub place: Range<usize>,
}

/// Check that every output has memory of its own, apart from all inputs.
///
/// # Errors
/// [`Error::Lent`]
pub fn check_apart(outputs: &[Lent], inputs: &[Lent]) -> Result<()> {
    let mut all: Vec<(&Lent, bool)> = outputs
        .iter()
        .map(|one| (one, true))
        .chain(inputs.iter().map(|one| (one, false)))
        .collect();
    all.retain(|(one, _)| !one.place.is_empty());
    all.sort_by_key(|(one, _)| (one.place.start, one.place.end));
    // Inputs may overlap each other: what was written before the place of this one, and all of it.
    let (mut written, mut before): (Option<&Lent>, Option<&Lent>) = (None, None);
    for (one, is_output) in all {
        let other = if is_output { before } else { written };
        if let Some(other) = other.filter(|other| other.place.end > one.place.start) {
            return Err(wrong(one, format!("overlaps that of `{}`", other.tensor)));
        }
        let further = |last: Option<&'_ Lent>| last.is_none_or(|l| l.place.end < one.place.end);
        if further(before) {
            before = Some(one);
        }
        if is_output && further(written) {
            written = Some(one);
        }
    }
    Ok(())
}

/// Check that the system lets outputs be written to, and that they are no map of one of `files`. On
/// Linux alone: elsewhere nothing is known.
///
/// # Errors
/// [`Error::Lent`]
pub fn check_writable(outputs: &[Lent], files: &BTreeSet<PathBuf>) -> Result<()> {
    #[cfg(target_os = "linux")]
    pages::check(outputs, files)?;
    #[cfg(not(target_os = "linux"))]
    let _ = (outputs, files);
    Ok(())
}

fn wrong(lent: &Lent, reason: String) -> Error {
    Error::Lent { tensor: lent.tensor.into(), reason }
}

#[cfg(target_os = "linux")]
mod pages {
    use std::collections::BTreeSet;
    use std::ops::Range;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    use super::{wrong, Lent};
    use crate::error::Result;

    /// A line of `/proc/self/maps`.
    struct Pages<'a> {
        place: Range<usize>,
        writable: bool,
        shared: bool,
        path: &'a [u8],
    }

    pub(super) fn check(outputs: &[Lent], files: &BTreeSet<PathBuf>) -> Result<()> {
        // Where the system does not tell, nothing is known.
        let Ok(text) = std::fs::read("/proc/self/maps") else { return Ok(()) };
        let maps: Vec<Pages> = text.split(|&byte| byte == b'\n').filter_map(pages).collect();
        let read: Vec<PathBuf> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
        for lent in outputs.iter().filter(|lent| !lent.place.is_empty()) {
            let first = maps.partition_point(|map| map.place.end <= lent.place.start);
            let mut known = lent.place.start;
            for map in maps[first..].iter().take_while(|map| map.place.start < lent.place.end) {
                if map.place.start > known || !map.writable {
                    break;
                }
                if map.shared && read.iter().any(|file| file.as_os_str().as_bytes() == map.path) {
                    return Err(wrong(lent, "is a map of an input's file".into()));
                }
                known = map.place.end;
            }
            if known < lent.place.end {
                return Err(wrong(lent, "is read-only, or not there".into()));
            }
        }
        Ok(())
    }

    fn pages(line: &[u8]) -> Option<Pages<'_>> {
        let mut words = line.splitn(6, |&byte| byte == b' ');
        let (start, end) = std::str::from_utf8(words.next()?).ok()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let modes = words.next()?;
        let path = words.nth(3).unwrap_or_default().trim_ascii_start();
        Some(Pages {
            place: address(start)?..address(end)?,
            writable: modes.get(1) == Some(&b'w'),
            shared: modes.get(3) == Some(&b's'),
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(outputs: &[Lent], inputs: &[Lent]) -> String {
        check_apart(outputs, inputs).unwrap_err().to_string()
    }

    fn lent<'a>(tensor: &'a str, bytes: &[u8]) -> Lent<'a> {
        let Range { start, end } = bytes.as_ptr_range();
        Lent { tensor, place: start as usize..end as usize }
    }

    #[test]
    fn outputs_overlap_neither_each_other_nor_an_input() {
        let memory = [0; 64];
        let part = |name, range: Range<usize>| lent(name, &memory[range]);
        let apart = [part("a", 0..16), part("b", 16..32), part("none", 8..8)];
        check_apart(&apart, &[part("x", 32..64), part("y", 40..50)]).unwrap();
        let reason = refusal(&[part("a", 0..32), part("b", 0..4), part("c", 16..40)], &[]);
        assert!(reason.contains("`a`") && reason.contains("overlaps"), "{reason}");
        // A long input, a short one inside it, and an output in its end.
        let inputs = [part("x", 0..40), part("y", 4..8)];
        assert!(refusal(&[part("a", 32..48)], &inputs).contains("overlaps that of `x`"));
        // An output before an input that reaches into it, with another input between.
        let inputs = [part("x", 4..8), part("y", 20..30)];
        assert!(refusal(&[part("a", 0..24)], &inputs).contains("overlaps that of `a`"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_must_be_writable_and_no_map_of_an_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in put");
        std::fs::write(&path, [0; 10_000]).unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        // SAFETY: nobody but this test has the file.
        let fixed = unsafe { memmap2::Mmap::map(&file).unwrap() };
        let refusal = |lent, files: &BTreeSet<PathBuf>| {
            check_writable(&[lent], files).unwrap_err().to_string()
        };
        assert!(refusal(lent("a", &fixed), &BTreeSet::new()).contains("read-only"));
        // SAFETY: as above.
        let shared = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
        check_writable(&[lent("a", &shared)], &BTreeSet::new()).unwrap();
        let files = BTreeSet::from([path]);
        assert!(refusal(lent("a", &shared), &files).contains("an input's file"));
        // SAFETY: as above.
        let own = unsafe { memmap2::MmapOptions::new().map_copy(&file).unwrap() };
        check_writable(&[lent("a", &own)], &files).unwrap();
        let nowhere = Lent { tensor: "a", place: 4096..8192 };
        assert!(refusal(nowhere, &BTreeSet::new()).contains("not there"));
    }
}
