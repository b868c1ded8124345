//! The states of experts, each found once for all runs of a family.

use crate::error::Result;
use crate::execute::delta::job::{DeltaJob, Expert};
use crate::execute::delta::states::States;
use crate::execute::pass::{Entry, Key, Resources};
use crate::kernels::drop::Mask;
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
        let Some(known) = resources.known else { return self.states(segments, resources, &[]) };
        let keys: Vec<Key> = self.experts.iter().map(|expert| self.key(expert)).collect();
        let found: Vec<Option<Entry>> = {
            let kept = known.lock();
            keys.iter().map(|key| kept.get(key)).collect()
        };
        let missing: Vec<usize> =
            (0..found.len()).filter(|&expert| found[expert].is_none()).collect();
        let thins = |&place: &usize| self.thins(&self.experts[missing[place]]);
        let wanted = (0..missing.len()).filter(|place| self.is_random() && thins(place));
        let stay: Vec<usize> = wanted.filter(|_| known.lock().take(self.staying_bytes())).collect();
        let only = self.only(&missing);
        let made = only.states(segments, resources, &stay).inspect_err(|_| {
            known.lock().give_back(stay.len() * self.staying_bytes());
        })?;
        let new = made.selections.into_iter().zip(made.scales).zip(made.masks);
        let new = new.map(|((selection, scale), masks)| Entry { selection, scale, masks });
        let new: Vec<Entry> = new.collect();
        for (place, (entry, &expert)) in new.iter().zip(&missing).enumerate() {
            let stays = stay.contains(&place);
            if self.thins(&self.experts[expert]) && (stays || self.is_worth_keeping()) {
                let masks = entry.masks.clone().filter(|_| stays);
                known.lock().insert(keys[expert].clone(), Entry { masks, ..entry.clone() });
            }
        }
        let mut new = new.into_iter();
        let mut states = States::default();
        for entry in found.into_iter().filter_map(|found| found.or_else(|| new.next())) {
            states.selections.push(entry.selection);
            states.scales.push(entry.scale);
            states.masks.push(entry.masks);
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

    /// Bytes of one expert's masks that stay between runs, with the table that they are made from.
    fn staying_bytes(&self) -> usize {
        let table = match self.sparsify {
            Sparsify::Ranks => RankLimits::bytes(self.rows.columns),
            _ => 0,
        };
        Mask::bytes(self.len) + table
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
