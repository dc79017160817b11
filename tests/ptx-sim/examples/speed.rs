//! Prints how many thread instructions a second the simulator executes, for kernels of several kinds.

use ptx_sim::{Launch, Memory, Module, Options, run};
use std::time::Instant;

const REDUCE: &str = include_str!("../tests/ptx/reduce.ptx");

fn main() {
    let module = Module::parse(REDUCE).expect("the text is PTX");
    let mut memory = Memory::new();
    let iterations = 20u32;
    let bytes = u64::from(iterations) * 128 * 16;
    let x = memory.alloc(bytes);
    memory.write(x, &vec![1; bytes as usize]).expect("the buffer is that large");
    let y = memory.alloc(2);
    let mut params = Vec::new();
    params.extend_from_slice(&x.to_le_bytes());
    params.extend_from_slice(&y.to_le_bytes());
    params.extend_from_slice(&iterations.to_le_bytes());
    for (name, checks) in [("all checks", ptx_sim::Checks::default()), ("no checks", ptx_sim::Checks::NONE)] {
        let checks = ptx_sim::Checks { global_races: false, ..checks };
        let launch = Launch {
            kernel: "reduce",
            grid: [2000, 1, 1],
            block: [128, 1, 1],
            dynamic_shared: 0,
            params: &params,
        };
        let start = Instant::now();
        let counts = run(&module, &mut memory, &launch, &Options { checks, ..Options::default() })
            .unwrap_or_else(|fault| panic!("{fault}"));
        let seconds = start.elapsed().as_secs_f64();
        let instructions = counts.thread_instructions.total() as f64;
        println!(
            "reduce, {name}: {:.0} M thread instructions in {seconds:.2} s, {:.0} M/s",
            instructions / 1e6,
            instructions / seconds / 1e6
        );
    }
}
