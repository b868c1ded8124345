//! The jobs of one tensor that are done together: one, or those of several merges that share inputs.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::execute::blocks::Output;
use crate::execute::delta::{alike, DeltaJob};
use crate::execute::group::{CustomJob, GroupJob};
use crate::execute::input_hashes::InputHashes;
use crate::execute::linear::{LinearApply, LinearJob};
use crate::execute::pass::Resources;
use crate::execute::target::{Member, Target};
use crate::execute::wide::WideJob;
use crate::kernels::drop::Mask;
use crate::kernels::elementwise::with_precision;
use crate::number::{Bf16, Float, F16, F32};
use crate::plan::{GroupMethod, Job, Merge};
use crate::source::{Models, RawTensor, Source, Tensor, Windows};
use crate::statistics::content;
use crate::work::{segments, Segment, BLOCK};

/// Jobs whose inputs were found and have the right shapes and dtypes.
pub(crate) struct Bundle<'a> {
    members: Vec<Member<'a>>,
    position: (usize, usize, u64),
    kind: Kind<'a>,
    allow_nonfinite: bool,
}

/// Computes and writes a segment of some members; gives the hashes of each one's blocks.
/// What is made of a segment for some members, and serves the others too, is passed on.
type Work<'w> =
    dyn Fn(&Segment, Range<usize>, &mut Vec<Option<Mask>>) -> Result<Vec<Vec<u64>>> + Sync + 'w;

enum Kind<'a> {
    Copy { inputs: Vec<RawTensor<'a>> },
    Linear(Vec<LinearJob<'a>>),
    Delta(DeltaJob<'a>),
    Group(GroupJob<'a>),
    Custom(CustomJob<'a>),
    Wide(WideJob<'a>),
}

impl<'a> Bundle<'a> {
    pub(crate) fn new(
        member: Member<'a>,
        models: &'a Models,
        allow_nonfinite: bool,
    ) -> Result<Self> {
        let Member { job, seed, .. } = member;
        let tensor = finder(job, models, allow_nonfinite);
        let kind = match &job.merge {
            Merge::Copy { inputs } => {
                let first = inputs.first().filter(|at| !models.is_stored(at.model, &at.tensor));
                match first {
                    Some(at) => Kind::Group(GroupJob::copy(job, tensor(at.model, &at.tensor)?)),
                    None => {
                        let bind = |input| models.raw(input, job);
                        Kind::Copy { inputs: inputs.iter().map(bind).collect::<Result<_>>()? }
                    }
                }
            }
            Merge::Linear { .. } => Kind::Linear(vec![LinearJob::new(job, tensor)?]),
            Merge::Delta { .. } => Kind::Delta(DeltaJob::new(job, seed, tensor)?),
            Merge::Group { method: GroupMethod::Custom(custom), .. } => {
                Kind::Custom(CustomJob::new(job, custom, tensor)?)
            }
            Merge::Group { .. } => Kind::Group(GroupJob::new(job, tensor)?),
            Merge::Wide { .. } => Kind::Wide(WideJob::new(job, models, allow_nonfinite)?),
            Merge::Given {} => return Err(no_input(job)),
        };
        let position = match job.merge.tensors().last() {
            Some((model, name)) => models.position(model, name)?,
            None => return Err(no_input(job)),
        };
        Ok(Self { members: vec![member], position, kind, allow_nonfinite })
    }

    /// Take a job in that can share a pass over the inputs; false where it cannot.
    pub(crate) fn join(&mut self, member: Member<'a>, models: &'a Models) -> Result<bool> {
        let (ours, theirs) = (&self.members[0], member.job);
        if ours.job.shape != theirs.shape || ours.seed != member.seed {
            return Ok(false);
        }
        let tensor = finder(theirs, models, self.allow_nonfinite);
        match (&mut self.kind, &theirs.merge) {
            (Kind::Linear(jobs), Merge::Linear { .. }) => {
                jobs.push(LinearJob::new(theirs, tensor)?)
            }
            (Kind::Delta(delta), Merge::Delta { .. }) if alike(ours.job, theirs) => {
                delta.add(theirs, tensor)?;
            }
            _ => return Ok(false),
        }
        self.members.push(member);
        Ok(true)
    }

    /// Where the input lies that decides the order of work.
    pub(crate) fn position(&self) -> (usize, usize, u64) {
        self.position
    }

    pub(crate) fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    pub(crate) fn len(&self) -> usize {
        self.members[0].job.len()
    }

    /// The floating-point tensors that are read.
    pub(crate) fn inputs(&self) -> Vec<&Tensor<'a>> {
        match &self.kind {
            Kind::Copy { .. } => vec![],
            Kind::Linear(jobs) => {
                let mut found: Vec<&Tensor> = Vec::new();
                for tensor in jobs.iter().flat_map(LinearJob::inputs) {
                    if !found.iter().any(|other| other.is(tensor)) {
                        found.push(tensor);
                    }
                }
                found
            }
            Kind::Delta(delta) => delta.inputs().collect(),
            Kind::Group(group) => group.inputs().collect(),
            Kind::Custom(custom) => custom.inputs().collect(),
            Kind::Wide(wide) => wide.narrow_inputs().collect(),
        }
    }

    /// Bytes of the inputs, each read once.
    pub(crate) fn input_bytes(&self) -> u64 {
        let each = |tensor: &&Tensor| tensor.dtype().size() as u64;
        let raw: u64 = match &self.kind {
            Kind::Copy { inputs } => inputs.iter().map(|input| input.bytes).sum(),
            Kind::Wide(wide) => (self.len() * wide.element_bytes()[1]) as u64,
            _ => 0,
        };
        raw + self.inputs().iter().map(each).sum::<u64>() * self.len() as u64
    }

    /// Bytes that the passes go over which every run makes.
    pub(crate) fn work_bytes(&self) -> u64 {
        let each = |tensor: &Tensor| (self.len() * tensor.dtype().size()) as u64;
        match &self.kind {
            Kind::Copy { .. } => self.input_bytes(),
            Kind::Wide(wide) => (self.len() * wide.element_bytes()[0]) as u64,
            Kind::Linear(jobs) => jobs.iter().flat_map(LinearJob::inputs).map(each).sum(),
            Kind::Delta(delta) => self.len() as u64 * delta.bytes_per_element(),
            Kind::Group(group) => self.len() as u64 * group.bytes_per_element(),
            Kind::Custom(custom) => self.len() as u64 * custom.bytes_per_element(),
        }
    }

    /// Bytes that one worker's buffers take at the most, with so many members at a time.
    pub(crate) fn worker_bytes(&self, chunk: usize, at_once: usize) -> usize {
        let at_once = at_once.min(self.members.len());
        let block = BLOCK.min(self.len().max(1));
        let widest = self.members.iter().map(|member| member.job.out_dtype.bitsize()).max();
        let out = block * widest.unwrap_or(0).div_ceil(8);
        let values = |n: usize| 4 * chunk * n;
        let windows = || Windows::bytes(&self.inputs(), self.len(), chunk);
        let made = self.inputs().into_iter().map(|input| input.scratch_bytes(chunk)).max();
        // One block is computed while another waits for its turn to be written.
        2 * at_once * out
            + made.unwrap_or(0)
            + match &self.kind {
                // Two blocks are compared where the files cannot be mapped.
                Kind::Copy { .. } => 2 * out,
                Kind::Linear(_) => values(2 + at_once) + windows(),
                Kind::Delta(delta) => {
                    let windows = if delta.has_statistics() { 0 } else { windows() };
                    values(delta.buffers(at_once)) + delta.mask_bytes(chunk) + windows
                }
                Kind::Group(group) => group.worker_bytes(chunk),
                Kind::Custom(custom) => custom.worker_bytes(),
                Kind::Wide(wide) => wide.worker_bytes(chunk),
            }
    }

    /// Bytes that the statistics of the tensor take: the least, and what serves speed best.
    pub(crate) fn statistics_bytes(&self, threads: usize) -> (usize, usize) {
        match &self.kind {
            Kind::Delta(delta) => delta.statistics_bytes(threads),
            Kind::Group(group) => (group.statistics_bytes(), group.statistics_bytes()),
            Kind::Custom(custom) => (custom.statistics_bytes(), custom.statistics_bytes()),
            _ => (0, 0),
        }
    }

    /// Bytes that a family keeps of the tensor between runs.
    pub(crate) fn known_bytes(&self) -> usize {
        match &self.kind {
            Kind::Delta(delta) => delta.known_bytes(),
            Kind::Custom(custom) => custom.known_bytes(),
            _ => 0,
        }
    }

    /// Merge the tensor into the targets' sinks and return its content hash for each member.
    /// The hash of each block that is read goes to `noted`.
    pub(crate) fn run(
        &self,
        targets: &[Target],
        resources: &Resources,
        noted: Option<&InputHashes>,
    ) -> Result<Vec<u64>> {
        let Resources { chunk, control, .. } = *resources;
        let segments = segments(self.len());
        let members: Vec<(&Member, _)> =
            self.members.iter().map(|member| (member, targets[member.target].sink)).collect();
        let (len, allow_nonfinite) = (self.len(), self.allow_nonfinite);
        let out = Output { members, len, chunk, control, allow_nonfinite, noted };
        let written = segments.iter().map(|segment| out.written(segment)).collect::<Vec<_>>();
        if written.iter().flatten().all(Option::is_some) {
            let whole = written.into_iter().map(|hashes| hashes.into_iter().flatten().collect());
            return Ok(combine(self.members.len(), whole.collect()));
        }
        let inputs = self.inputs();
        // A few members at a time, where memory is short; each time one pass over the inputs.
        let batches = || crate::work::pieces(0..self.members.len(), resources.members);
        let each = |work: &Work| {
            resources.parallel.map(segments.len(), |i| {
                let mut hashes = Vec::with_capacity(self.members.len());
                let mut masks = Vec::new();
                for some in batches() {
                    let there: Option<Vec<_>> = written[i][some.clone()].iter().cloned().collect();
                    hashes.extend(match there {
                        Some(there) => there,
                        None => work(&segments[i], some, &mut masks)?,
                    });
                }
                Ok(hashes)
            })
        };
        let blocks = match &self.kind {
            Kind::Copy { inputs } => each(&|segment, _, _| Ok(vec![out.copy(segment, inputs)?]))?,
            Kind::Wide(wide) => each(&|segment, _, _| {
                let (member, sink) = &out.members[0];
                let place = (member.number, *sink);
                Ok(vec![wide.segment(segment, place, chunk, self.allow_nonfinite, control)?])
            })?,
            Kind::Linear(jobs) => each(&|segment, some, _| {
                let windows = Windows::new(&inputs, len, chunk);
                let inputs = windows.over(&inputs);
                let mut apply = LinearApply::new(jobs, some.clone(), &inputs, control);
                out.segment(segment, some, &each_of(&inputs), &mut apply)
            })?,
            Kind::Delta(delta) => {
                self.pass("statistics")?;
                let states = delta.states_once(&segments, resources)?;
                self.pass("apply")?;
                // What statistics have read is still mapped.
                let is_mapped = delta.has_statistics();
                each(&|segment, some, masks| {
                    let windows = match is_mapped {
                        true => Windows::none(&inputs),
                        false => Windows::new(&inputs, len, chunk),
                    };
                    let inputs = windows.over(&inputs);
                    with_precision!(delta.dtype(), P => {
                        let mixes = some.clone();
                        let mut apply =
                            delta.apply::<P>(&inputs, &states, mixes, segment, resources, masks)?;
                        out.segment(segment, some, &each_of(&inputs), &mut apply)
                    })
                })?
            }
            Kind::Group(group) => {
                self.pass("statistics")?;
                let ready = group.prepare(resources)?;
                self.pass("apply")?;
                each(&|segment, some, _| {
                    out.segment(segment, some, &inputs, &mut *ready.segment(segment))
                })?
            }
            Kind::Custom(custom) => {
                self.pass("statistics")?;
                let ready = custom.prepare(resources)?;
                self.pass("apply")?;
                each(&|segment, some, _| out.segment(segment, some, &inputs, &mut ready.apply()))?
            }
        };
        Ok(combine(self.members.len(), blocks))
    }

    /// Pass a point of `fault`.
    fn pass(&self, point: &str) -> Result<()> {
        crate::fault::hit(point).map_err(|source| Error::Io {
            path: self.members[0].job.tensor.clone().into(),
            action: "merge",
            source,
        })
    }
}

fn each_of<'a, 'b>(inputs: &'a [Tensor<'b>]) -> Vec<&'a Tensor<'b>> {
    inputs.iter().collect()
}

/// Finds tensors of a job's shape.
fn finder<'a>(
    job: &'a Job,
    models: &'a Models,
    allow_nonfinite: bool,
) -> impl Fn(usize, &'a str) -> Result<Tensor<'a>> {
    move |model, name| models.tensor(model, name, &job.shape, allow_nonfinite)
}

fn no_input(job: &Job) -> Error {
    Error::Plan { reason: format!("tensor `{}` has no input", job.tensor) }
}

/// From the hashes of blocks, by segment and member, the hash of each member's tensor.
fn combine(members: usize, segments: Vec<Vec<Vec<u64>>>) -> Vec<u64> {
    let of = |member: usize| {
        let blocks = segments.iter().flat_map(|members| members[member].iter().copied());
        content::combine(&blocks.collect::<Vec<_>>())
    };
    (0..members).map(of).collect()
}
