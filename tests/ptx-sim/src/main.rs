//! `ptx-sim`: lists the kernels of a PTX file, or runs one.

use clap::Parser;
use ptx_sim::{Checks, Counts, CtaRange, Kernel, Launch, Memory, Module, Options, run};
use std::path::PathBuf;
use std::process::ExitCode;

/// Lists the kernels of a PTX file, or runs one of them and prints what it would cost.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The PTX text.
    file: PathBuf,
    /// Run this kernel.
    #[arg(long)]
    kernel: Option<String>,
    /// CTAs in x, y and z.
    #[arg(long, value_parser = shape, default_value = "1", requires = "kernel")]
    grid: [u32; 3],
    /// Threads of a CTA in x, y and z.
    #[arg(long, value_parser = shape, default_value = "32", requires = "kernel")]
    block: [u32; 3],
    /// Bytes of dynamic shared memory.
    #[arg(long, default_value_t = 0, requires = "kernel")]
    shared: u32,
    /// A parameter, in order: u32=N, s32=N, u64=N, f32=X, hex=BYTES, or buf=BYTES[:zero|random[:SEED]], the
    /// address of memory that nobody has written, or that holds zeros or random bits.
    #[arg(long, value_parser = parameter, requires = "kernel")]
    param: Vec<Value>,
    /// Run only CTAs of these linear indices, as 0..8.
    #[arg(long, value_parser = range, requires = "kernel")]
    ctas: Option<std::ops::Range<u64>>,
    /// Check bounds and alignment only.
    #[arg(long, requires = "kernel")]
    unchecked: bool,
    /// Most instructions that warps may execute.
    #[arg(long, requires = "kernel")]
    limit: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What a parameter is made of.
#[derive(Debug, Clone)]
enum Value {
    Bytes(Vec<u8>),
    Buffer(u64, Contents),
}

#[derive(Debug, Clone, Copy)]
enum Contents {
    Unwritten,
    Zero,
    Random(u64),
}

/// Why the command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Parse(PathBuf, ptx_sim::ParseError),
    #[error("{0} has no kernel {1}; it has: {2}")]
    Kernel(PathBuf, String, String),
    #[error("kernel {kernel} takes {expected} parameters, {found} are given with --param")]
    Count { kernel: String, expected: usize, found: usize },
    #[error("parameter {index} of kernel {kernel} has {expected} bytes, {found} are given")]
    Size { kernel: String, index: usize, expected: usize, found: usize },
    #[error(transparent)]
    Fault(Box<ptx_sim::Fault>),
    #[error(transparent)]
    Memory(#[from] ptx_sim::MemoryError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(&arguments) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: &Arguments) -> Result<String, CommandError> {
    let file = &arguments.file;
    let text = std::fs::read_to_string(file).map_err(|error| CommandError::Read(file.clone(), error))?;
    let module = Module::parse(&text).map_err(|error| CommandError::Parse(file.clone(), error))?;
    let Some(name) = &arguments.kernel else { return listing(&module, arguments.json) };
    let Some(kernel) = module.kernel(name) else {
        let names: Vec<_> = module.kernels().map(Kernel::name).collect();
        return Err(CommandError::Kernel(file.clone(), name.clone(), names.join(", ")));
    };
    let mut memory = Memory::new();
    let params = parameter_block(kernel, &arguments.param, &mut memory)?;
    let launch = Launch {
        kernel: name,
        grid: arguments.grid,
        block: arguments.block,
        dynamic_shared: arguments.shared,
        params: &params,
    };
    let default = Options::default();
    let options = Options {
        ctas: arguments.ctas.clone().map_or(CtaRange::All, CtaRange::Range),
        checks: if arguments.unchecked { Checks::NONE } else { Checks::default() },
        instruction_limit: arguments.limit.or(default.instruction_limit),
    };
    let counts =
        run(&module, &mut memory, &launch, &options).map_err(|fault| CommandError::Fault(Box::new(fault)))?;
    if arguments.json { Ok(serde_json::to_string_pretty(&counts)?) } else { table(&counts) }
}

fn parameter_block(kernel: &Kernel, values: &[Value], memory: &mut Memory) -> Result<Vec<u8>, CommandError> {
    let params = kernel.params();
    if params.len() != values.len() {
        let (expected, found) = (params.len(), values.len());
        return Err(CommandError::Count { kernel: kernel.name().to_owned(), expected, found });
    }
    let mut block = vec![0; kernel.param_bytes()];
    for (index, (param, value)) in params.iter().zip(values).enumerate() {
        let bytes = match value {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Buffer(size, contents) => buffer(memory, *size, *contents)?.to_le_bytes().to_vec(),
        };
        if bytes.len() != param.size {
            let (expected, found) = (param.size, bytes.len());
            return Err(CommandError::Size { kernel: kernel.name().to_owned(), index, expected, found });
        }
        block[param.offset..param.offset + param.size].copy_from_slice(&bytes);
    }
    Ok(block)
}

fn buffer(memory: &mut Memory, size: u64, contents: Contents) -> Result<u64, CommandError> {
    let address = memory.alloc(size);
    match contents {
        Contents::Unwritten => {}
        Contents::Zero => memory.write(address, &vec![0; size as usize])?,
        Contents::Random(seed) => {
            let mut state = seed;
            let bytes: Vec<u8> = std::iter::repeat_with(|| random(&mut state).to_le_bytes())
                .flatten()
                .take(size as usize)
                .collect();
            memory.write(address, &bytes)?;
        }
    }
    Ok(address)
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn listing(module: &Module, json: bool) -> Result<String, CommandError> {
    if json {
        let kernels: Vec<_> = module
            .kernels()
            .map(|kernel| {
                serde_json::json!({
                    "name": kernel.name(),
                    "params": kernel.params(),
                    "registers": kernel.declared_registers(),
                    "static_shared_bytes": kernel.static_shared_bytes(),
                    "local_bytes": kernel.local_bytes(),
                    "max_threads": kernel.max_threads(),
                    "opcodes": kernel.opcodes(),
                })
            })
            .collect();
        let (major, minor) = module.version();
        let module = serde_json::json!({
            "version": format!("{major}.{minor}"), "target": module.target(), "kernels": kernels,
        });
        return Ok(serde_json::to_string_pretty(&module)?);
    }
    let (major, minor) = module.version();
    let mut lines = vec![format!("PTX {major}.{minor} for {}", module.target())];
    for kernel in module.kernels() {
        lines.push(format!("\n{}", kernel.name()));
        for param in kernel.params() {
            lines.push(format!("  param {}: {} bytes at {}", param.name, param.size, param.offset));
        }
        let [pred, b16, b32, b64, b128] = kernel.declared_registers();
        lines.push(format!("  registers: {pred} pred, {b16} b16, {b32} b32, {b64} b64, {b128} b128"));
        lines.push(format!("  static shared memory: {} bytes", kernel.static_shared_bytes()));
        lines.push(format!("  local memory: {} bytes", kernel.local_bytes()));
        if let Some(threads) = kernel.max_threads() {
            lines.push(format!("  at most {threads} threads"));
        }
        for (opcode, count) in kernel.opcodes() {
            lines.push(format!("  {count:6} {opcode}"));
        }
    }
    Ok(lines.join("\n"))
}

/// The counts as lines of a name and a number, nested names joined by dots.
fn table(counts: &Counts) -> Result<String, CommandError> {
    fn rows(prefix: &str, value: &serde_json::Value, lines: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    rows(&name, value, lines);
                }
            }
            other => lines.push(format!("{prefix:44} {other:>16}")),
        }
    }
    let mut lines = Vec::new();
    rows("", &serde_json::to_value(counts)?, &mut lines);
    Ok(lines.join("\n"))
}

/// `2,3,1`; what is left out is 1.
fn shape(text: &str) -> Result<[u32; 3], String> {
    let mut shape = [1; 3];
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > 3 {
        return Err("at most three numbers, as 2,3,1".to_owned());
    }
    for (size, part) in shape.iter_mut().zip(parts) {
        *size = part.trim().parse().map_err(|_| format!("{part} is no number"))?;
    }
    Ok(shape)
}

/// `0..8`
fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    parsed.ok_or_else(|| "a range is written as 0..8".to_owned())
}

fn parameter(text: &str) -> Result<Value, String> {
    let (kind, value) = text.split_once('=').ok_or("a parameter is written as u32=5 or buf=1024:zero")?;
    let wrong = |what: &str| format!("{value} is no {what}");
    Ok(match kind {
        "u32" => Value::Bytes(value.parse::<u32>().map_err(|_| wrong("u32"))?.to_le_bytes().to_vec()),
        "s32" => Value::Bytes(value.parse::<i32>().map_err(|_| wrong("s32"))?.to_le_bytes().to_vec()),
        "u64" => Value::Bytes(value.parse::<u64>().map_err(|_| wrong("u64"))?.to_le_bytes().to_vec()),
        "f32" => Value::Bytes(value.parse::<f32>().map_err(|_| wrong("f32"))?.to_le_bytes().to_vec()),
        "hex" => {
            let digits: Vec<u8> = value
                .chars()
                .map(|digit| digit.to_digit(16).map(|digit| digit as u8).ok_or_else(|| wrong("hex string")))
                .collect::<Result<_, _>>()?;
            let (pairs, rest) = digits.as_chunks::<2>();
            if !rest.is_empty() {
                return Err(wrong("hex string of whole bytes"));
            }
            Value::Bytes(pairs.iter().map(|[high, low]| high << 4 | low).collect())
        }
        "buf" => {
            let (size, contents) = value.split_once(':').unwrap_or((value, ""));
            let bytes = size.parse().map_err(|_| wrong("size"))?;
            let contents = match contents.split_once(':').unwrap_or((contents, "0")) {
                ("", _) => Contents::Unwritten,
                ("zero", _) => Contents::Zero,
                ("random", seed) => Contents::Random(seed.parse().map_err(|_| wrong("seed"))?),
                _ => return Err(format!("a buffer is zero or random, not {contents}")),
            };
            Value::Buffer(bytes, contents)
        }
        _ => return Err(format!("{kind} is none of u32, s32, u64, f32, hex, buf")),
    })
}
