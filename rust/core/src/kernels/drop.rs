//! Keep each element of a delta with one probability (DARE).

use multiversion::multiversion;

/// Probability as a limit on 32-bit words: an element is kept where its word is below the limit.
/// The limit is 64 bits wide because probability 1 keeps every word.
pub fn limit(probability: f32) -> u64 {
    (f64::from(probability) * 4_294_967_296.0).round() as u64
}

/// Zero every element whose word is not below `limit`.
pub fn keep_below(deltas: &mut [f32], words: &[u32], limit: u64) {
    if let Ok(limit) = u32::try_from(limit) {
        keep_below_u32(deltas, words, limit);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn keep_below_u32(deltas: &mut [f32], words: &[u32], limit: u32) {
    for (delta, word) in deltas.iter_mut().zip(words) {
        *delta = if *word < limit { *delta } else { 0.0 };
    }
}
