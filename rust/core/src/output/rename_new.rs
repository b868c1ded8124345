//! Give something a name that nothing has, so that what appears meanwhile is never replaced.

use std::path::Path;

use crate::error::{Error, Result};

/// Rename `from` to `to`, unless there is a file, a folder or a link of that name; whether it was
/// renamed.
///
/// In one step where the system has one. Else a folder claims the name by an empty one, and a file by
/// a second link: whoever makes something of that name is told that it exists, and so are we.
///
/// # Errors
/// [`Error::Io`]
pub fn rename_new(from: &Path, to: &Path) -> Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{renameat_with, RenameFlags, CWD};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system has it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return told(done.map_err(Into::into), to),
        }
    }
    told(claimed(from, to), to)
}

fn told(done: std::io::Result<()>, to: &Path) -> Result<bool> {
    use std::io::ErrorKind::{AlreadyExists, DirectoryNotEmpty};
    match done {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), AlreadyExists | DirectoryNotEmpty) => Ok(false),
        Err(source) => Err(Error::Io { path: to.into(), action: "create", source }),
    }
}

fn claimed(from: &Path, to: &Path) -> std::io::Result<()> {
    if !std::fs::symlink_metadata(from)?.is_dir() {
        std::fs::hard_link(from, to)?;
        return std::fs::remove_file(from);
    }
    std::fs::create_dir(to)?;
    if cfg!(windows) {
        std::fs::remove_dir(to)?; // there a rename never replaces a folder
    }
    std::fs::rename(from, to).inspect_err(|_| {
        // Only while it is empty, as we made it.
        let _ = std::fs::remove_dir(to);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_is_free_is_taken() {
        for rename in [rename_new, |a: &Path, b: &Path| told(claimed(a, b), b)] {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            std::fs::create_dir(at("data")).unwrap();
            std::fs::write(at("data").join("f"), "ours").unwrap();
            std::fs::create_dir(at("theirs")).unwrap();
            std::fs::write(at("theirs").join("f"), "theirs").unwrap();
            std::fs::write(at("file"), "one").unwrap();
            std::fs::write(at("other"), "two").unwrap();
            for taken in ["theirs", "file", "other"] {
                assert!(!rename(&at("data"), &at(taken)).unwrap());
            }
            assert!(!rename(&at("file"), &at("other")).unwrap());
            assert!(!rename(&at("file"), &at("theirs")).unwrap());
            assert!(rename(&at("none"), &at("free")).is_err());
            assert_eq!(std::fs::read(at("theirs").join("f")).unwrap(), b"theirs");
            assert_eq!(std::fs::read(at("other")).unwrap(), b"two");
            assert!(rename(&at("data"), &at("out")).unwrap());
            assert!(rename(&at("file"), &at("new")).unwrap());
            assert_eq!(std::fs::read(at("out").join("f")).unwrap(), b"ours");
            assert_eq!(std::fs::read(at("new")).unwrap(), b"one");
            assert!(!at("data").exists() && !at("file").exists());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_takes_the_name_too() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "one").unwrap();
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(!rename_new(&file, &link).unwrap());
        assert!(!told(claimed(&file, &link), &link).unwrap());
        assert!(file.exists());
    }
}
