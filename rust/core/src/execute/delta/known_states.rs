//! The states of experts, each found once for all runs of a family.

use crate::error::Result;
use crate::execute::delta::job::{DeltaJob, Expert};
use crate::execute::delta::states::States;
use crate::execute::pass::{Key, Resources};
use crate::plan::Sparsify;
use crate::statistics::ranks::RankLimits;
use crate::work::Segment;

impl<'a> DeltaJob<'a> {
    /// The states of all experts; those that an earlier run has found are not looked for again.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub(crate) fn states_once(
        &self,
        segments: &[Segment],
        resources: &Resources,
    ) -> Result<States> {
        let Some(known) = resources.known else { return self.states(segments, resources) };
        let keys: Vec<Key> = self.experts.iter().map(|expert| self.key(expert)).collect();
        let found: Vec<_> = {
            let entries = known.lock();
            keys.iter().map(|key| entries.get(key).cloned()).collect()
        };
        let missing: Vec<usize> =
            (0..found.len()).filter(|&expert| found[expert].is_none()).collect();
        let mut states = self.only(&missing).states(segments, resources)?;
        let mut entries = known.lock();
        for (place, &expert) in missing.iter().enumerate() {
            if self.thins(&self.experts[expert]) && self.is_worth_keeping() {
                let entry = (states.selections[place].clone(), states.scales[place]);
                entries.insert(keys[expert].clone(), entry);
            }
        }
        if missing.len() < found.len() {
            let mut new = states.selections.into_iter().zip(states.scales);
            let all = found.into_iter().filter_map(|found| found.or_else(|| new.next()));
            let (selections, scales) = all.unzip();
            // Masks were made for some experts only; all are made again.
            states = States { selections, scales, masks: vec![] };
        }
        Ok(states)
    }

    /// The same job with some of its experts, and no mixes.
    fn only(&self, experts: &[usize]) -> Self {
        let experts = experts.iter().map(|&expert| self.experts[expert].clone()).collect();
        let Self { name, len, rows, seed, dtype, sparsify, rescale, .. } = *self;
        let base = self.base.clone();
        Self { name, len, rows, seed, dtype, sparsify, rescale, base, experts, mixes: vec![] }
    }

    fn key(&self, expert: &Expert) -> Key {
        Key {
            name: self.name.to_owned(),
            tensors: [self.base.identity(), expert.tensor.identity()],
            dtype: self.dtype,
            sparsify: self.sparsify,
            rescale: self.rescale,
            options: [expert.density, expert.gamma, expert.epsilon].map(f64::to_bits),
            seed: self.seed,
        }
    }

    /// DELLA's tables grow with the rows; what is larger than this is quicker made than kept.
    fn is_worth_keeping(&self) -> bool {
        const MOST_BYTES: usize = 4096;
        self.sparsify != Sparsify::Ranks || RankLimits::bytes(self.rows.columns) <= MOST_BYTES
    }

    /// Bytes that a family keeps of this tensor.
    pub(crate) fn known_bytes(&self) -> usize {
        const ENTRY: usize = 1024;
        let table = if self.sparsify == Sparsify::Ranks && self.is_worth_keeping() {
            RankLimits::bytes(self.rows.columns)
        } else {
            0
        };
        self.thinned().len() * (ENTRY + self.name.len() + table)
    }
}
