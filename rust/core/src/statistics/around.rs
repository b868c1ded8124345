//! Thresholds from what lies around them, where a sample says where that is.
//!
//! ```text
//! sample the deltas                               -> a bracket of magnitudes that should hold the threshold
//! count what lies above it, set aside what is in it -> the threshold, if the wanted rank falls inside
//! ```
//! A comparison with a bracket costs less than half of counting every magnitude in a table. What
//! comes out is exact or nothing: a rank outside its bracket is left to the tables.
//!
//! 1. The sample is made of short runs, spread evenly, since rows differ in scale. How much the runs
//!    differ says how wide the bracket must be.
//! 2. Real deltas are lumpy: of bfloat16 weights of scale 0.02 with deltas of 1e-4, a fifth has the
//!    magnitude of the threshold. The two most common magnitudes of a bracket are counted instead of
//!    set aside; where there is still too much in it, there is no bracket.
//! 3. What the page cache has lost of a file is left out of the sample, up to a quarter of it. Where one
//!    run of 32 was enough to take the tables, TIES of the 0.5B shape took 3.48 CPU seconds with 10 MB of
//!    5 GB evicted, for 3.27 now and 3.29 with nothing evicted. To read those runs would be a seek each.
//! 4. All of a small tensor is set aside: where magnitudes have low bits, tables take two passes.

use std::iter::once;
use std::ops::Range;

use crate::error::Result;
use crate::kernels::bracket::{count_around, Bracket, Found, LUMPS, NO_LUMP};
use crate::kernels::trim::magnitude;
use crate::statistics::magnitude::{first, largest, Threshold, Wanted, HIGH};
use crate::statistics::DeltaWalk;
use crate::work::{Parallel, Segment, BLOCK};

/// Tensors from this many elements on are worth a sample; of smaller ones all is set aside.
const MANY: usize = 8 * BLOCK;
/// Runs of a sample, and elements of each.
const RUNS: usize = 256;
const RUN: usize = 256;
/// The part of the runs that a sample needs at least.
const ENOUGH: f64 = 0.75;
/// Standard deviations of the sampled rank on either side that a bracket covers.
const DEVIATIONS: f64 = 4.0;
/// Of a stream's elements, no more than one in this many is set aside for a rank.
const SHARE: usize = 20;
/// A bracket's share of the sample is at most this part of what may be set aside: segments differ.
const FILL: f64 = 0.6;

/// Bytes of a stream's sample, and of the tables over it.
pub(crate) const SAMPLE_BYTES: usize = 4 * (RUNS * RUN + HIGH);

/// Bytes that it likes to set aside for one wanted rank.
pub(crate) fn aside_bytes(len: usize) -> usize {
    4 * if len < MANY { len } else { len / SHARE }
}

/// The thresholds that can be found so; no more than `aside` bytes are set aside for a rank.
///
/// # Errors
/// Whatever reading gives.
pub(super) fn thresholds(
    deltas: &dyn DeltaWalk,
    segments: &[Segment],
    wanted: &[Wanted],
    aside: usize,
    parallel: &Parallel,
) -> Result<Vec<Option<Threshold>>> {
    let len = segments.last().map_or(0, |last| last.range.end);
    let share = (aside / 4) as f64 / len as f64;
    let brackets = brackets(deltas, len, wanted, share)?;
    let there = |stream: &usize| {
        let mut found = brackets.iter().zip(wanted);
        found.any(|(found, want)| want.stream == *stream && found.is_some())
    };
    let streams: Vec<usize> = (0..deltas.streams()).filter(there).collect();
    if streams.is_empty() {
        return Ok(vec![None; wanted.len()]);
    }
    let counted = parallel.map(segments.len(), |number| {
        let segment = &segments[number];
        let room = (share * segment.range.len() as f64) as usize;
        let new =
            |bracket: &Option<Bracket>| bracket.map(|bracket| (bracket, Found::with_room(room)));
        let mut all: Vec<Option<(Bracket, Found)>> = brackets.iter().map(new).collect();
        deltas.walk(segment, &streams, &mut |stream, _, chunk| {
            for (want, one) in wanted.iter().zip(&mut all) {
                if want.stream == stream {
                    let fits = one
                        .as_mut()
                        .is_none_or(|(bracket, found)| count_around(chunk, bracket, room, found));
                    if !fits {
                        *one = None;
                    }
                }
            }
            Ok(())
        })?;
        Ok(all)
    })?;
    Ok((0..wanted.len())
        .map(|number| {
            let parts: Option<Vec<&(Bracket, Found)>> =
                counted.iter().map(|all| all[number].as_ref()).collect();
            let parts = parts?;
            let bracket = parts.first()?.0;
            let found: Vec<&Found> = parts.iter().map(|(_, found)| found).collect();
            within(&bracket, &found, wanted[number].rank)
        })
        .collect())
}

/// For each wanted rank a bracket that should hold it, and of which no more than `share` of all
/// elements should be set aside.
fn brackets(
    deltas: &dyn DeltaWalk,
    len: usize,
    wanted: &[Wanted],
    share: f64,
) -> Result<Vec<Option<Bracket>>> {
    if len < MANY && share >= 1.0 {
        let all = Bracket { low: 0, end: 1 << 31, lumps: [NO_LUMP; LUMPS] };
        return Ok(vec![Some(all); wanted.len()]);
    }
    let run = |number: usize| {
        let start = (len - RUN) / (RUNS - 1) * number;
        start..start + RUN
    };
    let runs = if len < MANY { vec![] } else { at_hand(deltas, (0..RUNS).map(run).collect()) };
    if runs.is_empty() {
        return Ok(vec![None; wanted.len()]);
    }
    let streams: Vec<usize> = (0..deltas.streams()).collect();
    let mut samples = vec![Vec::with_capacity(RUNS * RUN); streams.len()];
    for run in runs {
        deltas.sample(run, &streams, &mut |stream, _, chunk| {
            samples[stream].extend(chunk.iter().map(|delta| magnitude(*delta)));
            Ok(())
        })?;
    }
    let mut counts = vec![0; HIGH];
    let mut counted = None;
    let one = |want: &Wanted| {
        let sample = &samples[want.stream];
        if counted != Some(want.stream) {
            counted = Some(want.stream);
            counts.fill(0);
            sample.iter().for_each(|bits| counts[(bits >> 16) as usize] += 1);
        }
        bracket(sample, &counts, want.rank as f64 / len as f64, share)
    };
    Ok(wanted.iter().map(one).collect())
}

/// The runs of a sample that are read without a disk seek; none where too few are. Where every eighth
/// is at hand, nobody asks for the others.
fn at_hand(deltas: &dyn DeltaWalk, runs: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let some: Vec<_> = runs.iter().step_by(8).cloned().collect();
    let enough = |there: usize, all: usize| there as f64 >= ENOUGH * all as f64;
    let (asked, all) = (some.len(), runs.len());
    let there = deltas.at_hand(some).len();
    if there == asked {
        return runs;
    }
    let there = if enough(there, asked) { deltas.at_hand(runs) } else { vec![] };
    if enough(there.len(), all) {
        there
    } else {
        vec![]
    }
}

/// The bracket around the largest `part` of a sample, whose upper bits are counted.
fn bracket(sample: &[u32], counts: &[u32], part: f64, share: f64) -> Option<Bracket> {
    let bucket = |rank: f64| largest(HIGH, once(counts), rank as u64).0 as u32;
    let all = sample.len() as f64;
    let rank = all * part;
    let middle = bucket(rank.max(1.0)) << 16;
    let margin = 2.0 + DEVIATIONS * deviation(sample, middle);
    let end = if rank > margin { (bucket(rank - margin) + 1) << 16 } else { 1 << 31 };
    let low = if rank + margin < all { bucket((rank + margin).ceil()) << 16 } else { 0 };
    let mut inside: Vec<u32> =
        sample.iter().copied().filter(|bits| (low..end).contains(bits)).collect();
    inside.sort_unstable();
    let mut lumps: Vec<&[u32]> = inside.chunk_by(|a, b| a == b).collect();
    lumps.sort_unstable_by_key(|equal| std::cmp::Reverse(equal.len()));
    lumps.truncate(LUMPS);
    let in_lumps = lumps.iter().map(|equal| equal.len()).sum::<usize>();
    if 2 * in_lumps < inside.len() {
        lumps.clear();
    }
    let open = inside.len() - lumps.iter().map(|equal| equal.len()).sum::<usize>();
    let value = |number: usize| lumps.get(number).map_or(NO_LUMP, |equal| equal[0]);
    let lumps = std::array::from_fn(value);
    (open as f64 <= FILL * share * all).then_some(Bracket { low, end, lumps })
}

/// Standard deviation of how many of a sample are at least as large as `bits`, from what each of its
/// runs differs by from the next: parts of a tensor that differ are sampled each in its share.
fn deviation(sample: &[u32], bits: u32) -> f64 {
    let counts = sample.chunks(RUN).map(|run| run.iter().filter(|found| **found >= bits).count());
    let counts: Vec<f64> = counts.map(|count| count as f64).collect();
    let squares: f64 = counts.windows(2).map(|pair| (pair[0] - pair[1]).powi(2)).sum();
    (squares / 2.0 * counts.len() as f64 / (counts.len() - 1) as f64).sqrt()
}

/// The threshold, if it lies inside the bracket.
fn within(bracket: &Bracket, found: &[&Found], rank: u64) -> Option<Threshold> {
    const BINS: usize = 1 << 12;
    let lump = |number: usize| found.iter().map(|found| found.lumps[number]).sum::<u64>();
    let lumps: [(u32, u64); LUMPS] = std::array::from_fn(|i| (bracket.lumps[i], lump(i)));
    let aside = || found.iter().flat_map(|found| found.aside.iter().copied());
    let above: u64 = found.iter().map(|found| found.above).sum();
    // How many are larger than a magnitude of the bracket.
    let larger = |bits: u32| {
        let in_lumps = lumps.iter().filter(|(lump, _)| *lump > bits).map(|(_, count)| count);
        above + in_lumps.sum::<u64>() + aside().filter(|found| *found > bits).count() as u64
    };
    let holds =
        |(bits, count): &&(u32, u64)| (1..=*count).contains(&rank.wrapping_sub(larger(*bits)));
    let bits = match lumps.iter().find(holds) {
        Some((bits, _)) => *bits,
        None => {
            let before = |(bits, count): &&(u32, u64)| larger(*bits) + count < rank;
            let before: u64 = lumps.iter().filter(before).map(|(_, count)| count).sum();
            // Outside, the threshold lies above or below the bracket.
            let inside = 1..=aside().count() as u64;
            let rest = rank.checked_sub(above + before).filter(|rest| inside.contains(rest))?;
            let width = u32::BITS - (bracket.end - bracket.low - 1).leading_zeros();
            let shift = width.saturating_sub(BINS.ilog2());
            let bin = |bits: u32| ((bits - bracket.low) >> shift) as usize;
            let mut counts = vec![0; BINS];
            aside().for_each(|bits| counts[bin(bits)] += 1);
            let (number, more) = largest(BINS, once(&counts[..]), rest);
            let mut all = Vec::with_capacity(counts[number] as usize);
            all.extend(aside().filter(|bits| bin(*bits) == number));
            let index = all.len() - (rest - more) as usize;
            *all.select_nth_unstable(index).1
        }
    };
    let equal = |found: &&Found| {
        let in_lumps = found.lumps.iter().zip(lumps).filter(|(_, (lump, _))| *lump == bits);
        in_lumps.map(|(count, _)| count).sum::<u64>()
            + found.aside.iter().filter(|found| **found == bits).count() as u64
    };
    let ties = first(found.iter().map(equal), rank - larger(bits));
    Some(Threshold { bits, ties })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::round_bf16;
    use crate::work::{pieces, segments};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Deltas in memory.
    struct Deltas {
        streams: Vec<Vec<f32>>,
        /// Runs that begin before this part of a stream are not at hand.
        lost: f64,
        in_tables: AtomicUsize,
    }

    impl Deltas {
        fn new(streams: Vec<Vec<f32>>) -> Self {
            Self { streams, lost: 0.0, in_tables: AtomicUsize::default() }
        }
    }

    impl DeltaWalk for Deltas {
        fn streams(&self) -> usize {
            self.streams.len()
        }

        fn walk(
            &self,
            segment: &Segment,
            streams: &[usize],
            visit: &mut crate::statistics::Visit,
        ) -> Result<()> {
            for range in pieces(segment.range.clone(), 4096) {
                for &stream in streams {
                    visit(stream, range.start, &mut self.streams[stream][range.clone()].to_vec())?;
                }
            }
            Ok(())
        }

        fn sample(
            &self,
            run: Range<usize>,
            streams: &[usize],
            visit: &mut crate::statistics::Visit,
        ) -> Result<()> {
            self.walk(&Segment { number: 0, range: run }, streams, visit)
        }

        fn at_hand(&self, mut runs: Vec<Range<usize>>) -> Vec<Range<usize>> {
            let lost = self.lost * self.streams[0].len() as f64;
            runs.retain(|run| run.start as f64 >= lost);
            runs
        }

        fn counted_in_tables(&self, streams: usize) {
            self.in_tables.fetch_add(streams, Ordering::Relaxed);
        }
    }

    /// From all magnitudes in order, the largest first.
    fn sorted(all: &[u32], deltas: &[f32], segments: &[Segment], rank: u64) -> Threshold {
        let bits = all[rank as usize - 1];
        let larger = all.partition_point(|found| *found > bits) as u64;
        let equal = segments.iter().map(|segment| {
            let part = &deltas[segment.range.clone()];
            part.iter().filter(|delta| magnitude(**delta) == bits).count() as u64
        });
        Threshold { bits, ties: first(equal, rank - larger) }
    }

    /// Numbers that look normal.
    fn normal(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut uniform = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..len).map(|_| (0..6).map(|_| uniform()).sum()).collect()
    }

    fn kinds(len: usize) -> Vec<(&'static str, Vec<f32>)> {
        let plain = normal(len, 1);
        let map = |change: &dyn Fn(usize, f32) -> f32| {
            plain.iter().enumerate().map(|(i, value)| change(i, *value)).collect::<Vec<_>>()
        };
        vec![
            ("bfloat16", map(&|_, value| round_bf16(value))),
            ("three magnitudes", map(&|_, value| (value * 1.5).round())),
            ("a fifth on one", map(&|_, value| (value * 4.0).round() * 0.25)),
            ("mostly zero", map(&|i, value| if i % 50 == 0 { round_bf16(value) } else { 0.0 })),
            ("all equal", map(&|_, value| 0.5_f32.copysign(value))),
            ("all zero", vec![0.0; len]),
            ("with NaN and infinities", {
                let odd = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
                map(&|i, value| if i % 7 == 0 { odd[i / 7 % 4] } else { round_bf16(value) })
            }),
            (
                "one row in ten is loud",
                map(&|i, value| value * [1.0, 100.0][usize::from(i / 512 % 10 == 0)]),
            ),
            (
                "the end is loud",
                map(&|i, value| if i > len / 10 * 9 { 3.0 * value } else { value }),
            ),
            ("float32", plain),
        ]
    }

    #[test]
    fn thresholds_are_those_of_sorting() {
        let lengths = [1, 2, 17, 9001, MANY + 4097];
        for len in lengths {
            // Also as if they were cut, as large tensors are.
            let cut: Vec<Segment> = pieces(0..len, len.div_ceil(5).next_multiple_of(BLOCK))
                .enumerate()
                .map(|(number, range)| Segment { number, range })
                .collect();
            let (names, streams): (Vec<_>, Vec<_>) = kinds(len).into_iter().unzip();
            let mut all: Vec<Vec<u32>> =
                streams.iter().map(|s| s.iter().map(|delta| magnitude(*delta)).collect()).collect();
            all.iter_mut().for_each(|all| all.sort_unstable_by(|a, b| b.cmp(a)));
            let deltas = Deltas::new(streams);
            for segments in [segments(len), cut] {
                let parts = [1, len / 5, len - len / 11, len];
                let ranks = parts.iter().map(|part| (*part).max(1) as u64);
                let of = |stream| ranks.clone().map(move |rank| Wanted { stream, rank });
                let wanted: Vec<Wanted> = (0..names.len()).flat_map(of).collect();
                for aside in [aside_bytes(len), aside_bytes(len) / 8] {
                    let found = crate::statistics::magnitude::thresholds(
                        &deltas,
                        &segments,
                        &wanted,
                        true,
                        aside,
                        &Parallel::Here,
                    );
                    for (want, found) in wanted.iter().zip(found.unwrap()) {
                        let (all, own) = (&all[want.stream], &deltas.streams[want.stream]);
                        let expected = sorted(all, own, &segments, want.rank);
                        assert_eq!(found, expected, "{} of {len}: {want:?}", names[want.stream]);
                    }
                }
            }
        }
    }

    #[test]
    fn tables_are_left_what_no_sample_tells() {
        let len = MANY + 1;
        let (names, streams): (Vec<_>, Vec<_>) = kinds(len).into_iter().unzip();
        let want = |stream| Wanted { stream, rank: len as u64 / 5 };
        let wanted: Vec<_> = (0..names.len()).map(want).collect();
        let found = |lost, aside| -> Vec<&str> {
            let deltas = Deltas { lost, ..Deltas::new(streams.clone()) };
            let here = &Parallel::Here;
            let found = thresholds(&deltas, &segments(len), &wanted, aside, here).unwrap();
            names.iter().zip(found).filter(|(_, found)| found.is_none()).map(|(n, _)| *n).collect()
        };
        assert_eq!(found(0.3, aside_bytes(len)), names);
        assert_eq!(found(0.0, aside_bytes(len)), ["one row in ten is loud"]);
        // Lumps are counted, and need no room.
        assert_eq!(
            found(0.0, 0),
            [
                "bfloat16",
                "with NaN and infinities",
                "one row in ten is loud",
                "the end is loud",
                "float32"
            ]
        );
    }

    #[test]
    fn a_sample_that_lost_some_runs_gives_the_same_thresholds_nearly_without_tables() {
        let len = MANY + 1;
        let (_, streams): (Vec<_>, Vec<_>) = kinds(len).into_iter().unzip();
        let want = |stream| Wanted { stream, rank: len as u64 / 5 };
        let wanted: Vec<_> = (0..streams.len()).map(want).collect();
        let found = |lost| {
            let deltas = Deltas { lost, ..Deltas::new(streams.clone()) };
            let (all, here) = (segments(len), &Parallel::Here);
            let (magnitude, aside) = (crate::statistics::magnitude::thresholds, aside_bytes(len));
            let found = magnitude(&deltas, &all, &wanted, true, aside, here).unwrap();
            (found, deltas.in_tables.into_inner())
        };
        // "one row in ten is loud" has no bracket in any case.
        let (expected, in_tables) = found(0.0);
        assert_eq!(in_tables, 1);
        // "the end is loud", and more than a tenth of what is left.
        assert_eq!(found(0.24), (expected.clone(), 2));
        assert_eq!(found(0.3), (expected, streams.len()));
    }

    #[test]
    fn a_rank_outside_its_bracket_is_not_found() {
        let deltas = Deltas::new(vec![(0..100).map(|i| i as f32).collect()]);
        let bracket =
            Bracket { low: 10.0_f32.to_bits(), end: 20.0_f32.to_bits(), lumps: [NO_LUMP; 2] };
        let mut part = Found::with_room(10);
        assert!(count_around(&deltas.streams[0], &bracket, 10, &mut part));
        for rank in 1..=100 {
            let found = within(&bracket, &[&part], rank).map(|found| f32::from_bits(found.bits));
            let expected = 100.0 - rank as f32;
            assert_eq!(found, (10.0..20.0).contains(&expected).then_some(expected));
        }
        assert!(!count_around(&deltas.streams[0], &bracket, 15, &mut part));
    }

    #[test]
    fn what_is_set_aside_takes_the_room_that_is_counted_for_it() {
        let all = Bracket { low: 0, end: 1 << 31, lumps: [NO_LUMP; LUMPS] };
        let deltas = normal(9001, 3);
        let mut found = Found::with_room(deltas.len());
        for chunk in deltas.chunks(4096) {
            assert!(count_around(chunk, &all, deltas.len(), &mut found));
        }
        assert_eq!(found.aside.capacity(), aside_bytes(deltas.len()) / 4);
    }
}
