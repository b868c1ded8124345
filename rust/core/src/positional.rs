//! Reads and writes at an offset, which leave no cursor that threads would have to share.

use std::fs::{File, OpenOptions};
use std::path::Path;

/// Open a file of ours for more writing: a plain file, with no other name. A link in its place, of
/// either kind, is somebody else's file.
pub(crate) fn open_again(path: &Path) -> std::io::Result<File> {
    open_ours(path, OpenOptions::new().read(true).write(true))
}

/// The same, where every write goes to the end.
pub(crate) fn open_to_append(path: &Path) -> std::io::Result<File> {
    open_ours(path, OpenOptions::new().read(true).append(true))
}

fn open_ours(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is no plain file"));
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&metadata) != 1 {
        return Err(std::io::Error::other("it has another name too (a hard link)"));
    }
    Ok(file)
}

/// Ask the system to begin to write some bytes of a file to the disk, without waiting until they are
/// there. Advice only: what makes a file durable is still its sync, which then finds less to do.
pub(crate) fn begin_sync(file: &File, start: u64, length: u64) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let (file, start, length) = (file.as_raw_fd(), start as i64, length as i64);
        // SAFETY: the descriptor is open as long as the caller's `File`, and no memory is passed.
        let _ = unsafe { libc::sync_file_range(file, start, length, libc::SYNC_FILE_RANGE_WRITE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, start, length);
}

#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(unix)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
pub(crate) fn read_exact_at(
    file: &File,
    mut bytes: &mut [u8],
    mut offset: u64,
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[n..];
        offset += n as u64;
    }
    Ok(())
}

#[cfg(windows)]
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}
