//! Execution: instructions, control flow, faults, counts. Kernels are bodies of a few lines that work on an
//! input `%in` and an output `%out`.

mod alu;
mod bulk;
mod control;
mod counts;
mod faults;
mod memory;
mod parse;
mod random;
mod sync;

use ptx_sim::{Counts, Fault, Launch, Memory, Module, Options, run};

/// A module with one kernel `k(in, out)`. The body starts in line 24 and finds the addresses in `%in` and
/// `%out`, the thread's index in `%t`, and those of the thread's words in `%a` and `%b`.
pub fn module(body: &str) -> String {
    format!(
        ".version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.global .align 4 .u32 counter = 7;
.const .align 4 .b32 table[4] = {{10, 20, 30, 40}};
.visible .entry k(
 .param .u64 .ptr .align 16 k_param_0,
 .param .u64 .ptr .align 16 k_param_1
)
{{
 .reg .pred %p<10>; .reg .b16 %h<20>; .reg .b32 %r<40>; .reg .b64 %d<40>;
 .reg .b64 %in, %out, %a, %b; .reg .b32 %t;
 .shared .align 16 .b8 tile[1024];
 .local .align 8 .b8 stack[64];
 ld.param.b64 %in, [k_param_0];
 ld.param.b64 %out, [k_param_1];
 mov.u32 %t, %tid.x;
 mul.wide.u32 %a, %t, 4;
 add.s64 %b, %out, %a;
 add.s64 %a, %in, %a;
//
// body
{body}
 ret;
}}
"
    )
}

/// How a kernel is run.
pub struct Run {
    /// CTAs along x.
    pub grid: u32,
    /// Threads of a CTA along x.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Checks and limits.
    pub options: Options,
}

impl Default for Run {
    fn default() -> Self {
        Self { grid: 1, block: 32, dynamic_shared: 0, options: Options::default() }
    }
}

impl Run {
    /// Runs a body on an input; returns the output, as long as asked for, and the counts.
    pub fn counts(&self, body: &str, input: &[u8], output: usize) -> Result<(Vec<u8>, Counts), Fault> {
        let module = Module::parse(&module(body)).unwrap_or_else(|error| panic!("{error}"));
        let mut memory = Memory::new();
        let from = memory.alloc(input.len() as u64);
        memory.write(from, input).expect("the input fits");
        let to = memory.alloc(output as u64);
        let params: Vec<u8> = [from, to].iter().flat_map(|address| address.to_le_bytes()).collect();
        let launch = Launch {
            kernel: "k",
            grid: [self.grid, 1, 1],
            block: [self.block, 1, 1],
            dynamic_shared: self.dynamic_shared,
            params: &params,
        };
        let counts = run(&module, &mut memory, &launch, &self.options)?;
        let mut bytes = vec![0; output];
        memory.read(to, &mut bytes).expect("the output was allocated");
        Ok((bytes, counts))
    }

    /// The words that a body leaves.
    pub fn words(&self, body: &str, input: &[u32]) -> Vec<u32> {
        let bytes: Vec<u8> = input.iter().flat_map(|word| word.to_le_bytes()).collect();
        let output = 4 * (self.grid * self.block) as usize;
        let (bytes, _) = self.counts(body, &bytes, output).unwrap_or_else(|fault| panic!("{fault}"));
        bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    /// The fault that a body ends with, on 4 KiB of input and of output.
    pub fn fault(&self, body: &str) -> Fault {
        match self.counts(body, &[0; 4096], 4096) {
            Err(fault) => fault,
            Ok(_) => panic!("no fault in\n{body}"),
        }
    }
}

/// The words that a body leaves with one warp.
pub fn words(body: &str, input: &[u32]) -> Vec<u32> {
    Run::default().words(body, input)
}
