//! Swap two folders, so that what replaces an output is never seen half done.

use std::path::Path;

use crate::error::{Error, Result};

/// Exchange the names `a` and `b`, in one step where the system has one, else in three renames.
///
/// # Errors
/// [`Error::Io`]
pub fn exchange(a: &Path, b: &Path) -> Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{renameat_with, RenameFlags, CWD};
        if renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    let mut aside = a.as_os_str().to_owned();
    aside.push(".replaced");
    let aside = Path::new(&aside);
    for (from, to) in [(b, aside), (a, b), (aside, a)] {
        std::fs::rename(from, to).map_err(|source| Error::Io {
            path: from.into(),
            action: "rename",
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_folders_change_places() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        for (path, text) in [(&a, "one"), (&b, "two")] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("f"), text).unwrap();
        }
        exchange(&a, &b).unwrap();
        assert_eq!(std::fs::read(a.join("f")).unwrap(), b"two");
        assert_eq!(std::fs::read(b.join("f")).unwrap(), b"one");
        assert!(exchange(&a, &folder.path().join("none")).is_err());
    }
}
