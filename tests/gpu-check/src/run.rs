//! Runs the cases of a bundle through a driver.

use std::collections::{BTreeMap, HashMap};

use nemort::device::gpu::driver::{Address, Driver, DriverError, Image, KernelUse, Launch, ModuleId};
use serde_json::{Value, json};

use crate::bundle::{Case, Cases};
use crate::compare::loaded;
use crate::launch::Places;

/// What came of some cases.
#[derive(Debug, Default)]
pub struct Summary {
    /// Cases that were run.
    pub run: usize,
    /// Cases that this GPU or driver trait cannot express; they have not been run.
    pub skipped: usize,
    /// What is wrong, a line a case.
    pub failed: Vec<String>,
    /// The largest error of each op's cases over what is allowed.
    pub worst: BTreeMap<String, f64>,
}

impl Summary {
    /// As one JSON document.
    pub fn json(&self) -> Value {
        // JSON has no infinity.
        let number = |x: &f64| if x.is_finite() { json!(x) } else { json!("infinite") };
        let worst = self.worst.iter().map(|(op, error)| (op.clone(), number(error)));
        json!({
            "run": self.run,
            "skipped": self.skipped,
            "failed": self.failed.len(),
            "worst": worst.collect::<serde_json::Map<_, _>>(),
        })
    }

    /// Notes one case.
    pub fn note(&mut self, name: &str, result: Result<(), String>) {
        self.run += 1;
        if let Err(what) = result {
            println!("FAILED {name}: {what}");
            self.failed.push(format!("{name}: {what}"));
        }
    }
}

/// Runs every `every`th case.
pub fn run(driver: &mut dyn Driver, cases: &Cases, every: usize) -> Summary {
    let mut summary = Summary::default();
    let mut modules = HashMap::new();
    for case in cases.cases.iter().step_by(every.max(1)) {
        let result = run_case(driver, &mut modules, cases, case);
        let result = result.and_then(|error| {
            let worst = summary.worst.entry(case.op.clone()).or_default();
            *worst = worst.max(error);
            if error <= 1.0 { Ok(()) } else { Err(format!("{error:.3} times the error that is allowed")) }
        });
        summary.note(&case.name, result);
    }
    summary
}

/// Memory of one case, given back whatever happens.
struct Taken<'a> {
    driver: &'a mut dyn Driver,
    all: Vec<Address>,
}

impl Taken<'_> {
    fn alloc(&mut self, bytes: u64) -> Result<Address, DriverError> {
        let address = self.driver.alloc(bytes.max(1))?;
        self.all.push(address);
        Ok(address)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for address in self.all.drain(..) {
            // A GPU that has failed says so again here, and the case has reported it.
            let _ = self.driver.free(address);
        }
    }
}

/// The largest error of a case's results.
fn run_case(
    driver: &mut dyn Driver,
    modules: &mut HashMap<String, Result<ModuleId, String>>,
    cases: &Cases,
    case: &Case,
) -> Result<f64, String> {
    let load = || {
        let text = cases.module(case).map_err(|error| error.to_string())?;
        let loaded = driver.load(Image::Ptx(&text)).map_err(|error| format!("{}: {error}", case.module))?;
        Ok(loaded.module)
    };
    let module = modules.entry(case.module.clone()).or_insert_with(load).clone()?;
    let mut taken = Taken { driver, all: Vec::new() };
    let found = launch(&mut taken, module, cases, case).map_err(|error| error.to_string())?;
    let mut worst = 0.0_f64;
    for (expected, bytes) in case.expected.iter().zip(found) {
        let both = loaded(&bytes, expected.dtype).zip(cases.reference(expected));
        let (found, reference) = both.ok_or("a result of a dtype that no kernel gives")?;
        worst = worst.max(expected.tolerance.error(&found, &reference));
    }
    Ok(worst)
}

/// The bytes of the rooms that are compared.
fn launch(
    taken: &mut Taken<'_>,
    module: ModuleId,
    cases: &Cases,
    case: &Case,
) -> Result<Vec<Vec<u8>>, DriverError> {
    let launch = &case.launch;
    let kernel_use = KernelUse { symbol: &case.symbol, threads: launch.threads, shared: launch.shared };
    let kernel = taken.driver.kernel(module, kernel_use)?;
    let mut rooms = Vec::new();
    for (index, room) in launch.rooms.iter().enumerate() {
        let address = taken.alloc(room.bytes + room.shift)?.offset(room.shift);
        if let Some(bytes) = cases.initial(case, index) {
            taken.driver.upload(address, bytes)?;
        }
        rooms.push(address.0);
    }
    let counters = taken.alloc(launch.counters * 4)?;
    taken.driver.zero(counters, launch.counters * 4)?;
    let partials = taken.alloc(launch.partials)?;
    let places = Places { rooms, counters: counters.0, partials: partials.0 };
    let parameters = launch.parameters(&places, |matrix| taken.driver.tensor_map(matrix))?;
    taken.driver.run(&[Launch {
        kernel,
        grid: launch.grid,
        threads: launch.threads,
        shared: launch.shared,
        parameters,
    }])?;
    let mut left = vec![0; launch.counters as usize * 4];
    taken.driver.download(counters, &mut left)?;
    if left.iter().any(|byte| *byte != 0) {
        return Err(DriverError("counters are not zero again".to_owned()));
    }
    let mut found = Vec::new();
    for expected in &case.expected {
        let mut bytes = vec![0; launch.rooms[expected.room].bytes as usize];
        taken.driver.download(Address(places.rooms[expected.room]), &mut bytes)?;
        found.push(bytes);
    }
    Ok(found)
}
