//! Ask for input before it is needed, in the order of the work, so that a disk reads long runs of one
//! file at a time while the workers compute. On files that are cached already it costs next to
//! nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::execute::bundle::Bundle;
use crate::source::{Source, Tensor};
use crate::work::{pieces, Control};

/// Elements of one input that are asked for at a time.
const PIECE: usize = 1 << 21;
/// Bytes by which reading may run ahead of the work; less where the memory limit is tight.
const MOST_AHEAD: u64 = 128 << 20;
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct ReadAhead<'a> {
    control: &'a Control,
    ahead: u64,
    stop: &'a AtomicBool,
}

impl ReadAhead<'_> {
    /// Do `work` while another thread asks for the inputs of `bundles`, in order.
    pub(super) fn beside<T>(
        bundles: &[Bundle],
        control: &Control,
        memory_bytes: u64,
        work: impl FnOnce() -> T,
    ) -> T {
        let stop = AtomicBool::new(false);
        let ahead = MOST_AHEAD.min(memory_bytes / 2);
        std::thread::scope(|scope| {
            // Advice only: where the system gives no thread for it, the work does without.
            let asking = || ReadAhead { control, ahead, stop: &stop }.run(bundles);
            let _ = std::thread::Builder::new().spawn_scoped(scope, asking);
            let done = work();
            stop.store(true, Ordering::Relaxed);
            done
        })
    }

    fn run(&self, bundles: &[Bundle]) {
        let mut asked = 0;
        for bundle in bundles {
            let inputs = bundle.inputs();
            for piece in pieces(0..bundle.len(), PIECE) {
                for input in &inputs {
                    if !self.wait(asked) {
                        return;
                    }
                    input.will_need(piece.clone());
                    asked += (piece.len() * input.dtype().size()) as u64;
                }
            }
            asked += bundle.input_bytes() - bytes_of(&inputs, bundle.len());
        }
    }

    /// Until no more than the allowance lies between what was asked for and what has been read.
    fn wait(&self, asked: u64) -> bool {
        while !self.stop.load(Ordering::Relaxed) {
            if asked <= self.control.touched_bytes() + self.ahead {
                return true;
            }
            std::thread::sleep(PAUSE);
        }
        false
    }
}

fn bytes_of(inputs: &[&Tensor], elements: usize) -> u64 {
    inputs.iter().map(|input| (elements * input.dtype().size()) as u64).sum()
}
