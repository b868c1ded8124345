//! The JSON of a safetensors header, for a file just as long as it says, and for one that is not.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mergeplan_core::checkpoint::header;

fuzz_target!(|json: &[u8]| {
    let shortest = 8 + json.len() as u64;
    for data in [0, 4, 1 << 20] {
        if let Ok(tensors) = header::parse(Path::new("f"), json, shortest + data) {
            // Without gap or overlap, up to the end.
            let mut end = 0;
            for (_, info) in tensors {
                assert_eq!(info.data_offsets.0, end);
                end = info.data_offsets.1;
            }
            assert_eq!(end as u64, data);
        }
    }
});
