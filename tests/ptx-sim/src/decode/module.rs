//! A module that can be executed.

use super::link::{Code, link};
use crate::error::{ParseError, ParseErrorKind, Space};
use crate::layout;
use crate::parse::{self, Tree, VarId};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

/// A parameter of a kernel and its place in the parameter block.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Param {
    /// Its name in the text.
    pub name: String,
    /// Bytes it takes.
    pub size: usize,
    /// Its alignment.
    pub align: usize,
    /// Its first byte in the block.
    pub offset: usize,
}

/// A kernel of a module.
#[derive(Debug)]
pub struct Kernel {
    name: String,
    params: Vec<Param>,
    param_bytes: usize,
    max_threads: Option<u32>,
    registers: [u32; 5],
    pub(crate) code: Code,
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its parameters, in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Bytes of the parameter block.
    pub fn param_bytes(&self) -> usize {
        self.param_bytes
    }

    /// Bytes of shared memory that it declares (or that functions it calls declare).
    pub fn static_shared_bytes(&self) -> u32 {
        self.code.static_shared
    }

    /// Bytes of local memory of a thread: arrays, and parameters of calls.
    pub fn local_bytes(&self) -> u32 {
        self.code.frame_bytes
    }

    /// Most threads a CTA may have by `.maxntid` or `.reqntid`.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }

    /// Registers that its text declares, before any allocation: predicates, then 16, 32, 64 and 128 bits.
    pub fn declared_registers(&self) -> [u32; 5] {
        self.registers
    }

    /// How often each opcode stands in its text and in that of the functions it calls.
    pub fn opcodes(&self) -> BTreeMap<String, usize> {
        self.code.opcodes.clone()
    }
}

/// A variable in global memory.
#[derive(Debug)]
pub(crate) struct GlobalVariable {
    pub id: VarId,
    pub size: u64,
    pub init: Vec<u8>,
    /// Addresses of other variables in its bytes: offset, what, addend.
    pub addresses: Vec<(usize, AddressOf, i64)>,
}

/// Something whose address an initialiser holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AddressOf {
    Global(VarId),
    Constant(u64),
}

/// A parsed and decoded module.
#[derive(Debug)]
pub struct Module {
    pub(crate) id: u64,
    version: (u32, u32),
    target: String,
    pub(crate) source: String,
    kernels: Vec<Kernel>,
    pub(crate) globals: Vec<GlobalVariable>,
    /// The bytes of all `.const` variables.
    pub(crate) constants: Vec<u8>,
}

impl Module {
    /// Parses and decodes PTX. Everything that cannot be executed is an error here, never a surprise later.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tree = parse::parse(text)?;
        let (const_places, constants) = constants(&tree)?;
        let globals = globals(&tree, &const_places)?;
        let mut kernels = Vec::new();
        for (index, function) in tree.functions.iter().enumerate().filter(|(_, f)| f.entry) {
            let mut params = Vec::new();
            let mut places = HashMap::new();
            let mut end = 0usize;
            for &id in &function.params {
                let variable = &tree.variables[id];
                let (size, align) = (variable.size as usize, (variable.align as usize).max(1));
                let offset = end.next_multiple_of(align);
                end = offset + size;
                places.insert(id, offset as u64);
                params.push(Param { name: variable.name.clone(), size, align, offset });
            }
            if end > 1 << 16 {
                let kind = ParseErrorKind::Unsupported("more than 64 KiB of parameters".to_owned());
                return Err(ParseError { line: function.line, text: function.name.clone(), kind });
            }
            kernels.push(Kernel {
                name: function.name.clone(),
                params,
                param_bytes: end,
                max_threads: function.max_threads,
                registers: function.registers,
                code: link(&tree, text, index, &const_places, &places)?,
            });
        }
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            version: tree.version,
            target: tree.target,
            source: text.to_owned(),
            kernels,
            globals,
            constants,
        })
    }

    /// The kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter()
    }

    /// The kernel of a name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// Version of PTX: major, minor.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The target that the text names, such as `sm_86`.
    pub fn target(&self) -> &str {
        &self.target
    }
}

/// Places of the constants, and their bytes.
fn constants(tree: &Tree) -> Result<(HashMap<VarId, u64>, Vec<u8>), ParseError> {
    let mut places = HashMap::new();
    let mut bytes = Vec::new();
    for (id, variable) in tree.variables.iter().enumerate().filter(|(_, v)| v.space == Space::Const) {
        if !variable.addresses.is_empty() || variable.size > 1 << 16 {
            let kind =
                ParseErrorKind::Unsupported("an address, or more than 64 KiB, in constants".to_owned());
            return Err(ParseError { line: variable.line, text: variable.name.clone(), kind });
        }
        let place = bytes.len().next_multiple_of(variable.align.max(1) as usize);
        bytes.resize(place + variable.size as usize, 0);
        if let Some(init) = &variable.init {
            bytes[place..place + init.len()].copy_from_slice(init);
        }
        places.insert(id, place as u64);
    }
    Ok((places, bytes))
}

fn globals(tree: &Tree, const_places: &HashMap<VarId, u64>) -> Result<Vec<GlobalVariable>, ParseError> {
    let mut globals = Vec::new();
    for (id, variable) in tree.variables.iter().enumerate().filter(|(_, v)| v.space == Space::Global) {
        let mut addresses = Vec::new();
        for (offset, name, addend, _) in &variable.addresses {
            let found = tree
                .variables
                .iter()
                .position(|other| other.name == *name && matches!(other.space, Space::Global | Space::Const));
            let Some(found) = found else {
                let kind = ParseErrorKind::UnknownName(name.clone());
                return Err(ParseError { line: variable.line, text: variable.name.clone(), kind });
            };
            let what = match const_places.get(&found) {
                Some(place) => AddressOf::Constant(place + layout::CONST_WINDOW),
                None => AddressOf::Global(found),
            };
            addresses.push((*offset, what, *addend));
        }
        if variable.size > 1 << 30 {
            let kind = ParseErrorKind::Unsupported("a variable of more than 1 GiB".to_owned());
            return Err(ParseError { line: variable.line, text: variable.name.clone(), kind });
        }
        // Global variables are zero where nothing initialises them.
        let mut init = variable.init.clone().unwrap_or_default();
        init.resize(variable.size as usize, 0);
        globals.push(GlobalVariable { id, size: variable.size, init, addresses });
    }
    Ok(globals)
}
