//! Plans whose inputs are open: one, or a family that shares its inputs.

use std::collections::HashMap;
use std::ops::Range;

use crate::checkpoint::KnownHeaders;
use crate::checkpoint::{Checkpoint, Identity};
use crate::error::{Error, Result};
use crate::execute::budget::Budget;
use crate::execute::bundle::Bundle;
use crate::execute::input_hashes::InputHashes;
use crate::execute::pass::{Known, Resources};
use crate::execute::read_ahead::ReadAhead;
use crate::execute::target::{Member, Target};
use crate::execute::{Forecast, Options};
use crate::output::Sink;
use crate::plan::{Job, Merge, Plan};
use crate::source::Models;
use crate::work::{is_large, pool, Control, JobControl, Parallel};

/// Plans whose inputs are open and agree with them.
#[derive(Debug)]
pub struct Prepared {
    plans: Vec<Plan>,
    models: Models,
    /// For each plan the numbers of its models among all.
    numbers: Vec<Vec<usize>>,
    known: Known,
    hashes: InputHashes,
}

impl Prepared {
    /// Open all inputs and check every job against their headers.
    ///
    /// # Errors
    /// Whatever opening a model gives; missing tensors, other shapes, dtypes that cannot be
    /// merged.
    pub fn new(plan: Plan) -> Result<Self> {
        Self::family(vec![plan], &KnownHeaders::new())
    }

    /// Open the inputs of several plans, each once. Headers that the caller has read are not read again.
    ///
    /// # Errors
    /// As for [`Prepared::new`]; [`Error::Plan`] where the plans differ in how they treat values that
    /// are not finite.
    pub fn family(mut plans: Vec<Plan>, read: &KnownHeaders) -> Result<Self> {
        let mut known = HashMap::new();
        let mut models = Models::default();
        let mut numbers = Vec::with_capacity(plans.len());
        for plan in &mut plans {
            let own = models.open_all(std::mem::take(&mut plan.models), &mut known, read)?;
            plan.jobs.iter_mut().for_each(|job| job.merge.renumber(&own));
            numbers.push(own);
        }
        if plans.iter().any(|plan| plan.allow_nonfinite != plans[0].allow_nonfinite) {
            let reason = "plans that run together must agree on `allow_nonfinite`".to_owned();
            return Err(Error::Plan { reason });
        }
        Self::checked(plans, models, numbers)
    }

    /// A plan over checkpoints that are open already, in the order of its models.
    ///
    /// # Errors
    /// As for [`Prepared::new`]; [`Error::Plan`] where their number is not that of the models.
    pub fn over(plan: Plan, checkpoints: Vec<Checkpoint>) -> Result<Self> {
        let (expected, found) = (plan.models.len(), checkpoints.len());
        if found != expected {
            return Err(Error::Plan {
                reason: format!("{found} checkpoints for {expected} models"),
            });
        }
        Self::checked(vec![plan], Models::over(checkpoints), vec![(0..found).collect()])
    }

    fn checked(plans: Vec<Plan>, models: Models, numbers: Vec<Vec<usize>>) -> Result<Self> {
        let prepared = Self {
            plans,
            models,
            numbers,
            known: Known::default(),
            hashes: InputHashes::default(),
        };
        prepared.bind(&prepared.all())?;
        Ok(prepared)
    }

    /// All of a plan's tensors.
    pub fn target<'s>(&self, plan: usize, sink: &'s dyn Sink) -> Target<'s> {
        Target { plan, jobs: 0..self.plans[plan].jobs.len(), sink }
    }

    /// The plans, in order. Their jobs number the models anew, over the whole family.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// For each model of a plan, what its files were when they were opened. One that is derived has
    /// none of its own.
    pub fn identities(&self, plan: usize) -> Vec<Vec<&Identity>> {
        self.numbers[plan].iter().map(|&model| self.models.identities(model)).collect()
    }

    /// What a run of all plans reads and needs, from headers alone.
    ///
    /// # Errors
    /// None once [`Prepared::family`] has succeeded.
    pub fn forecast(&self, threads: usize) -> Result<Forecast> {
        let bundles = self.bind(&self.all())?;
        Ok(Forecast::new(&bundles, threads))
    }

    /// Merge into the targets' sinks, which are left to be finished: one pass over each tensor's
    /// inputs for all of them, as far as memory goes. Returns for each target the content hashes of
    /// its tensors, in the order of its jobs.
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::BufferDiffers`], [`Error::Io`], [`Error::Memory`],
    /// [`Error::InputChanged`], [`Error::Cancelled`].
    pub fn run(
        &self,
        targets: &[Target],
        options: Options,
        control: &Control,
    ) -> Result<Vec<Vec<u64>>> {
        let parts: Vec<_> =
            targets.iter().map(|target| (target.plan, target.jobs.clone())).collect();
        let mut bundles = self.bind(&parts)?;
        // Between large tensors lie too few others for many workers, so that those come last then, all
        // side by side: by the schedule alone 16 workers have 97 % of their time for a 7B shape, and
        // 58 % in the files' order (docs/evidence/speed.md). Two follow the files, and a disk's head.
        let many = options.threads > 2;
        bundles.sort_by_key(|bundle| (many && !is_large(bundle.len()), bundle.position()));
        let budget = Budget::new(&bundles, options, self.kept(&bundles, options))?;
        self.known.lock().allow(budget.keeps, budget.masks_bytes);
        let pool = pool(options.threads)?;
        let run = Run {
            targets,
            budget: &budget,
            control,
            pool: &Parallel::Pool(&pool),
            known: budget.keeps.then_some(&self.known),
            prepared: self,
        };
        let hashes =
            ReadAhead::beside(&bundles, control, options.memory_bytes, || run.all(&bundles))?;
        self.check_unchanged(targets.iter().map(|target| target.plan))?;
        Ok(hashes)
    }

    /// Bytes of the random masks that wait for further runs.
    pub fn kept_mask_bytes(&self) -> usize {
        self.known.lock().taken()
    }

    /// Check that the inputs of some plans are what they were when they were opened.
    ///
    /// # Errors
    /// [`Error::InputChanged`]
    pub fn check_unchanged(&self, plans: impl Iterator<Item = usize>) -> Result<()> {
        let mut used: Vec<usize> = plans.flat_map(|plan| &self.numbers[plan]).copied().collect();
        used.sort_unstable();
        used.dedup();
        let mut files = used.iter().flat_map(|&model| self.models.files(model));
        files.try_for_each(|reader| reader.check_unchanged())
    }

    /// A plan, and one of its jobs.
    ///
    /// # Errors
    /// [`Error::Plan`] where there is no such job.
    pub(crate) fn job(&self, plan: usize, job: usize) -> Result<(&Plan, &Job)> {
        let plan = self.plans().get(plan).ok_or_else(|| missing("plan"))?;
        Ok((plan, plan.jobs.get(job).ok_or_else(|| missing("job"))?))
    }

    /// The models of all plans, as the plans' jobs number them.
    pub(crate) fn models(&self) -> &Models {
        &self.models
    }

    /// Hashes of what was read.
    pub(crate) fn hashes(&self) -> &InputHashes {
        &self.hashes
    }

    /// Bytes of what stays for later runs, which other plans' runs can use.
    fn kept(&self, bundles: &[Bundle], options: Options) -> u64 {
        let all: usize = bundles.iter().map(Bundle::known_bytes).sum();
        if options.keeps && self.plans.len() > 1 {
            all as u64
        } else {
            0
        }
    }

    fn all(&self) -> Vec<(usize, Range<usize>)> {
        self.plans.iter().enumerate().map(|(i, plan)| (i, 0..plan.jobs.len())).collect()
    }

    /// The jobs of some parts of plans, those together that can share their passes.
    fn bind(&self, parts: &[(usize, Range<usize>)]) -> Result<Vec<Bundle<'_>>> {
        let mut bundles: Vec<Bundle> = Vec::new();
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (target, (plan, jobs)) in parts.iter().enumerate() {
            let Plan { jobs: all, seed, allow_nonfinite, .. } = &self.plans[*plan];
            'jobs: for number in jobs.clone() {
                let job = &all[number];
                if matches!(job.merge, Merge::Given {}) {
                    continue;
                }
                let member = Member { target, number, job, seed: *seed };
                let others = by_name.entry(&job.tensor).or_default();
                for &other in others.iter() {
                    if bundles[other].join(member, &self.models)? {
                        continue 'jobs;
                    }
                }
                others.push(bundles.len());
                bundles.push(Bundle::new(member, &self.models, *allow_nonfinite)?);
            }
        }
        Ok(bundles)
    }
}

/// The caller asked for something that the plans do not have.
pub(crate) fn missing(what: &str) -> Error {
    Error::Plan { reason: format!("there is no such {what}") }
}

/// One run over some bundles.
struct Run<'a> {
    targets: &'a [Target<'a>],
    budget: &'a Budget,
    control: &'a Control,
    pool: &'a Parallel<'a>,
    known: Option<&'a Known>,
    prepared: &'a Prepared,
}

impl Run<'_> {
    /// Large tensors one by one, all workers inside each; those between them side by side.
    fn all(&self, bundles: &[Bundle]) -> Result<Vec<Vec<u64>>> {
        let mut hashes: Vec<Vec<u64>> =
            self.targets.iter().map(|target| vec![0; target.jobs.len()]).collect();
        for wave in bundles.chunk_by(|a, b| !is_large(a.len()) && !is_large(b.len())) {
            let done = match wave {
                [bundle] if is_large(bundle.len()) => {
                    vec![self.one(bundle, self.pool, self.budget.cache_bytes)?]
                }
                _ => {
                    let share = self.budget.cache_bytes / self.pool.threads();
                    self.pool.map(wave.len(), |i| self.one(&wave[i], &Parallel::Here, share))?
                }
            };
            for (bundle, found) in wave.iter().zip(done) {
                for (member, hash) in bundle.members().iter().zip(found) {
                    let first = self.targets[member.target].jobs.start;
                    hashes[member.target][member.number - first] = hash;
                }
            }
        }
        Ok(hashes)
    }

    fn one(&self, bundle: &Bundle, parallel: &Parallel, cache_bytes: usize) -> Result<Vec<u64>> {
        let control = &JobControl::new(self.control, bundle.work_bytes(), bundle.input_bytes());
        let Budget { chunk, members, .. } = *self.budget;
        let known = self.known;
        let resources = Resources { chunk, cache_bytes, control, parallel, members, known };
        let unknown =
            |member: &&Member| !self.targets[member.target].sink.knows_inputs(member.number);
        let unknown: Vec<&Member> = bundle.members().iter().filter(unknown).collect();
        let noted = (!unknown.is_empty()).then_some(&self.prepared.hashes);
        let hashes = bundle.run(self.targets, &resources, noted)?;
        for member in unknown {
            let Target { plan, sink, .. } = self.targets[member.target];
            sink.inputs_read(member.number, self.prepared.input_hash(plan, member.number)?)?;
        }
        control.finish();
        Ok(hashes)
    }
}
