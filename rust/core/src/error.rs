//! One error type. Every variant names the file and the tensor, and says what was expected and found.

use std::path::PathBuf;

/// What can go wrong between opening the first input and publishing the output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused `action` on `path`.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `read`, `write`.
        action: &'static str,
        /// The system's own error.
        source: std::io::Error,
    },
    /// An input is a folder, a device or a pipe.
    #[error("`{path}`: expected a regular file, found {found}")]
    FileKind {
        /// Where it is.
        path: PathBuf,
        /// What it is, with its article.
        found: &'static str,
    },
    /// A folder holds no safetensors checkpoint.
    #[error("no safetensors checkpoint in `{path}`: expected `model.safetensors` or `model.safetensors.index.json`")]
    NoCheckpoint {
        /// The folder.
        path: PathBuf,
    },
    /// Shards that an index names are not in its folder.
    #[error("`{path}`: {missing} of its {shards} files are not there, such as `{shard}`")]
    MissingShards {
        /// The index.
        path: PathBuf,
        /// How many.
        missing: usize,
        /// Files that the index names.
        shards: usize,
        /// The first that is missing.
        shard: String,
    },
    /// A file has the words of git-lfs that stand for it where it was not fetched.
    #[error("`{path}`: expected weights, found a git-lfs pointer: the weights were not fetched")]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// The length prefix promises more header than the file, or the format, can hold.
    #[error("`{path}`: header length is {header_bytes} bytes, but the file has {file_bytes} bytes in all and a header at most 100000000")]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// Length that the first eight bytes give.
        header_bytes: u64,
        /// Length of the file.
        file_bytes: u64,
    },
    /// The header is no JSON object of tensors.
    #[error("`{path}`: invalid header: {reason}")]
    HeaderJson {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        reason: String,
    },
    /// The tensors that the header lists do not end where the file ends.
    #[error("`{path}`: the header describes a file of {expected} bytes, found {found} bytes")]
    FileLength {
        /// The file.
        path: PathBuf,
        /// Bytes by the header.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// Shape and dtype of a tensor do not give the number of bytes between its offsets.
    #[error("`{path}`: tensor `{tensor}`: its shape and dtype need {expected} bytes, its offsets span {found}")]
    TensorBytes {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes by shape and dtype; `more than 2^63` where that overflows.
        expected: String,
        /// Bytes by the offsets.
        found: String,
    },
    /// A tensor overlaps another, or leaves a gap before it.
    #[error("`{path}`: tensor `{tensor}`: expected its data at offset {expected}, found {found}: tensors must neither overlap nor leave gaps")]
    TensorOffset {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where the tensor before it ends.
        expected: u64,
        /// Where it says that it begins.
        found: u64,
    },
    /// The shard index is not usable.
    #[error("`{path}`: invalid shard index: {reason}")]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the plan needs is not in a checkpoint.
    #[error("`{path}`: tensor `{tensor}` is missing")]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the plan says.
    #[error("`{path}`: tensor `{tensor}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape in the plan.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has a dtype that cannot be merged.
    #[error("`{path}`: tensor `{tensor}`: expected dtype {expected}, found `{found}`")]
    Dtype {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Dtypes that would do.
        expected: &'static str,
        /// Dtype in the file.
        found: String,
    },
    /// An input value is NaN or infinite, or becomes so when it is cast to the working dtype.
    #[error("`{path}`: tensor `{tensor}`: element {index} is {value}, not a finite `{dtype}`")]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Flat index of the first such element in its block.
        index: u64,
        /// The value as stored.
        value: f32,
        /// Dtype of the computation.
        dtype: &'static str,
    },
    /// A result is NaN or infinite although all inputs are finite.
    #[error("output tensor `{tensor}`: element {index} is not finite in `{dtype}`")]
    Overflow {
        /// The output tensor.
        tensor: String,
        /// Flat index of the first such element in its chunk.
        index: u64,
        /// Dtype of the output.
        dtype: &'static str,
    },
    /// Weights or other options that cannot be computed with.
    #[error("tensor `{tensor}`: {reason}")]
    Options {
        /// The output tensor.
        tensor: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A tensor that is not floating point (a buffer) is not the same in all inputs.
    #[error(
        "`{path}`: tensor `{tensor}` is not floating point and differs from the one in `{first}`"
    )]
    BufferDiffers {
        /// The checkpoint that differs.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The checkpoint that it is compared with.
        first: PathBuf,
    },
    /// An input file is no longer what it was when the merge began.
    #[error("`{path}` changed during the merge: expected {expected}, found {found}")]
    InputChanged {
        /// The file.
        path: PathBuf,
        /// What it was when it was opened.
        expected: String,
        /// What it is now.
        found: String,
    },
    /// The merge needs more memory than it may use.
    #[error("the merge needs {needed} bytes of memory, found a limit of {limit} bytes")]
    Memory {
        /// The least that it can run in.
        needed: u64,
        /// What it may use.
        limit: u64,
    },
    /// The operating system gave no memory.
    #[error("the system gives no {needed} bytes of memory")]
    NoMemory {
        /// What was asked for.
        needed: u64,
    },
    /// Memory that the caller gives for an output cannot take it.
    #[error("tensor `{tensor}`: the memory for it {reason}")]
    Lent {
        /// The output tensor.
        tensor: String,
        /// What is wrong with its memory.
        reason: String,
    },
    /// The operating system gave no threads.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's own words.
        reason: String,
    },
    /// What an interrupted run left cannot be continued.
    #[error("cannot resume from `{path}`: {reason}")]
    Resume {
        /// The file that says so.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A method of the caller's failed.
    #[error("method `{method}`: tensor `{tensor}`: {reason}")]
    Custom {
        /// The method.
        method: String,
        /// The output tensor.
        tensor: String,
        /// What went wrong, in the method's words.
        reason: String,
    },
    /// The plan is not one that this version can run.
    #[error("invalid plan: {reason}")]
    Plan {
        /// What is wrong with it.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Text from a file, fit for a message: not endless, and without characters that a terminal obeys.
pub(crate) fn readable(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut out = String::new();
    for character in text.chars() {
        if out.len() >= LONGEST {
            out.push('…');
            break;
        }
        match character {
            '"' | '\'' | '\\' => out.push(character),
            _ => out.extend(character.escape_debug()),
        }
    }
    out
}

impl Error {
    /// What the user can do about it, where there is something to say.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::HeaderLength { .. } | Error::FileLength { .. } | Error::TensorBytes { .. } => {
                "the file is damaged or was not copied to its end; fetch it again"
            }
            Error::HeaderJson { .. } | Error::TensorOffset { .. } => {
                "the file is damaged or not in safetensors format; fetch it again"
            }
            Error::NoCheckpoint { .. } => {
                "give the folder of a checkpoint, or its safetensors file"
            }
            Error::MissingShards { .. } => {
                "the checkpoint was not fetched or copied to its end; fetch it again"
            }
            Error::LfsPointer { .. } => {
                "`git lfs pull` in that folder fetches the weights, and so does `hf download`"
            }
            Error::FileKind { .. } => "put the file itself there, or a link to it",
            Error::Index { .. } => {
                "fetch the checkpoint again, with its index and all of its shards"
            }
            Error::NonFinite { .. } => "pass `--allow-nonfinite` to merge it all the same",
            Error::Overflow { .. } => {
                "write a wider dtype such as `out_dtype: bfloat16`, or pass `--allow-nonfinite`"
            }
            Error::Options { .. } => "change a weight, or set `normalize: false`",
            Error::Lent { .. } => "give each tensor writable memory of its own",
            Error::InputChanged { .. } => "merge again once nothing writes to the inputs",
            Error::NoMemory { .. } => {
                "lower `--memory-limit` or `--threads`, or raise the limit on the process's memory"
            }
            Error::Threads { .. } => {
                "lower `--threads`, or raise the limits on processes and memory"
            }
            Error::Resume { .. } => "pass `--discard` to start over",
            Error::BufferDiffers { .. } => {
                "merge only checkpoints that agree on their integer buffers"
            }
            _ => return None,
        })
    }
}
