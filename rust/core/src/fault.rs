//! Faults on demand, to test what a merge leaves behind when it is stopped at a given point.
//!
//! `MERGEPLAN_FAULT=write:7:kill` kills the process at the seventh time that it passes the point
//! `write`; `:error` makes that step fail with an input/output error instead. Without the variable
//! a point costs one load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

struct Fault {
    point: String,
    left: AtomicU64,
    kills: bool,
}

/// Pass a point.
///
/// # Errors
/// The fault that was asked for.
pub fn hit(point: &str) -> std::io::Result<()> {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    let Some(fault) = FAULT.get_or_init(from_environment) else { return Ok(()) };
    if fault.point != point || fault.left.fetch_sub(1, Ordering::Relaxed) != 1 {
        return Ok(());
    }
    #[cfg(unix)]
    if fault.kills {
        // As a kill from outside: no destructor runs, nothing is flushed.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    if fault.kills {
        std::process::abort();
    }
    Err(std::io::Error::other(format!("fault at `{point}`, asked for by MERGEPLAN_FAULT")))
}

fn from_environment() -> Option<Fault> {
    let text = std::env::var("MERGEPLAN_FAULT").ok()?;
    let mut parts = text.split(':');
    let point = parts.next()?.to_owned();
    let left = AtomicU64::new(parts.next()?.parse().ok().filter(|&n: &u64| n > 0)?);
    let kills = parts.next()? == "kill";
    Some(Fault { point, left, kills })
}
