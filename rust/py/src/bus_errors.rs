//! Pages of a mapped input that cannot be read: said in words, instead of a death without any.

use pyo3::prelude::*;

/// Nothing else may be done where it is said: neither memory nor locks can be had there.
#[cfg(unix)]
const WORDS: &[u8] = b"error: an input cannot be read: its disk has failed, or the file became \
shorter while it was read\n\nhint: the system's log names the disk; when the input is whole again, \
`--resume` goes on with a merge\n";

/// Let a page that cannot be read end the process with the exit code 1 and a message, as any other
/// input does that cannot be read. A handler that another library has set stays.
#[pyfunction]
pub(crate) fn tell_bus_errors() {
    #[cfg(unix)]
    // SAFETY: both calls are given valid, zeroed structures, for which zero is a valid value; the
    // handler does only what a handler of signals may do.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut now) != 0
            || now.sa_sigaction != libc::SIG_DFL
        {
            return;
        }
        now.sa_sigaction = tell as *const () as usize;
        libc::sigaction(libc::SIGBUS, &now, std::ptr::null_mut());
    }
}

#[cfg(unix)]
extern "C" fn tell(_: libc::c_int) {
    // SAFETY: writing and ending at once are allowed in a handler; the words outlive it.
    unsafe {
        libc::write(2, WORDS.as_ptr().cast(), WORDS.len());
        libc::_exit(1);
    }
}
