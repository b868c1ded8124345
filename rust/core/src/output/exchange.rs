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
    rename(b, aside)?;
    if let Err(error) = rename(a, b) {
        // Put back what was there; if even that fails, the message says where it is.
        return match rename(aside, b) {
            Ok(()) => Err(error),
            Err(lost) => Err(lost),
        };
    }
    rename(aside, a)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|source| Error::Io {
        path: from.into(),
        action: "rename",
        source,
    })
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
        let none = folder.path().join("none");
        assert!(exchange(&a, &none).is_err());
        assert!(exchange(&none, &a).is_err());
        assert_eq!(std::fs::read(a.join("f")).unwrap(), b"two");
    }
}
