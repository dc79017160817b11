//! One kernel and the functions it calls, laid out as one piece of code with one set of registers.

use super::cx::{Bases, Cx};
use super::flow;
use super::op::{Guard, Instr, NO_JOIN, Op, P};
use crate::error::{ParseError, ParseErrorKind, Space};
use crate::layout;
use crate::parse::{Class, Function, Operand, Special, Statement, StatementKind, Tree, VarId, collapse};
use std::collections::{BTreeMap, HashMap};

/// A value that a register holds from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Const {
    Value(u64),
    Special(Special),
    /// Start of the dynamic shared memory, and an offset.
    DynamicShared {
        offset: i64,
        generic: bool,
    },
    /// Address of a variable of the module in global memory, and an offset.
    Global(VarId, i64),
}

/// Code of a kernel.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub instructions: Vec<Instr>,
    pub w: u32,
    pub d: u32,
    pub p: u32,
    pub w_consts: Vec<(u32, Const)>,
    pub d_consts: Vec<(u32, Const)>,
    pub static_shared: u32,
    pub dynamic_align: u32,
    pub frame_bytes: u32,
    /// Log2 of the bytes that the smallest access to shared memory touches.
    pub granule: u32,
    pub opcodes: BTreeMap<String, usize>,
}

/// Builds a [`Code`].
pub(super) struct Linker<'t> {
    tree: &'t Tree,
    source: &'t str,
    pub code: Vec<Instr>,
    w: u32,
    d: u32,
    p: u32,
    consts: HashMap<(bool, Const), u32>,
    /// Places of shared variables, and of those in the frame of a thread.
    places: HashMap<VarId, u64>,
    const_places: &'t HashMap<VarId, u64>,
    kernel_params: &'t HashMap<VarId, u64>,
    static_shared: u64,
    dynamic_align: u32,
    frame: u64,
    pub granule: u32,
    opcodes: BTreeMap<String, usize>,
    /// Branches to be patched: instruction, label, scope.
    branches: Vec<(usize, String, usize)>,
    tables: Vec<(usize, String)>,
    /// Calls to be patched: instruction, index of the function.
    calls: Vec<(usize, usize)>,
    /// First instruction of each function that is reached.
    starts: HashMap<usize, u32>,
    queue: Vec<usize>,
    edges: Vec<(usize, usize)>,
    current: usize,
}

/// Decodes a kernel.
pub(super) fn link(
    tree: &Tree,
    source: &str,
    entry: usize,
    const_places: &HashMap<VarId, u64>,
    kernel_params: &HashMap<VarId, u64>,
) -> Result<Code, ParseError> {
    let mut linker = Linker {
        tree,
        source,
        code: Vec::new(),
        w: 0,
        d: 0,
        // Predicate 0 is true.
        p: 1,
        consts: HashMap::new(),
        places: HashMap::new(),
        const_places,
        kernel_params,
        static_shared: 0,
        dynamic_align: 16,
        frame: 0,
        granule: 2,
        opcodes: BTreeMap::new(),
        branches: Vec::new(),
        tables: Vec::new(),
        calls: Vec::new(),
        starts: HashMap::new(),
        queue: vec![entry],
        edges: Vec::new(),
        current: entry,
    };
    while let Some(index) = linker.queue.pop() {
        if !linker.starts.contains_key(&index) {
            linker.function(index)?;
        }
    }
    linker.check_recursion()?;
    for (at, callee) in std::mem::take(&mut linker.calls) {
        linker.code[at].op = Op::Call { target: linker.starts[&callee] };
    }
    let mut code = Code {
        instructions: linker.code,
        w: linker.w,
        d: linker.d,
        p: linker.p,
        static_shared: linker.static_shared as u32,
        dynamic_align: linker.dynamic_align,
        frame_bytes: linker.frame.next_multiple_of(16) as u32,
        granule: linker.granule,
        opcodes: linker.opcodes,
        ..Code::default()
    };
    for ((wide, value), index) in linker.consts {
        let list = if wide { &mut code.d_consts } else { &mut code.w_consts };
        list.push((index, value));
    }
    Ok(code)
}

impl<'t> Linker<'t> {
    pub(super) fn new_w(&mut self) -> u32 {
        self.w += 1;
        self.w - 1
    }

    pub(super) fn new_d(&mut self) -> u32 {
        self.d += 1;
        self.d - 1
    }

    pub(super) fn new_p(&mut self) -> u32 {
        self.p += 1;
        self.p - 1
    }

    /// The 32-bit register that holds a constant.
    pub(super) fn w_const(&mut self, value: Const) -> super::op::W {
        if let Some(&index) = self.consts.get(&(false, value)) {
            return super::op::W(index);
        }
        let index = self.new_w();
        self.consts.insert((false, value), index);
        super::op::W(index)
    }

    /// The 64-bit register that holds a constant.
    pub(super) fn d_const(&mut self, value: Const) -> super::op::D {
        if let Some(&index) = self.consts.get(&(true, value)) {
            return super::op::D(index);
        }
        let index = self.new_d();
        self.consts.insert((true, value), index);
        super::op::D(index)
    }

    pub(super) fn is_kernel_param(&self, id: VarId) -> bool {
        self.kernel_params.contains_key(&id)
    }

    /// Address of a variable in its own space.
    pub(super) fn place(&mut self, id: VarId, offset: i64) -> Result<Const, ParseErrorKind> {
        let variable = &self.tree.variables[id];
        let value = |place: u64| Const::Value(place.wrapping_add_signed(offset));
        Ok(match variable.space {
            Space::Global => Const::Global(id, offset),
            Space::Const => value(self.const_places[&id]),
            Space::Shared if variable.external => {
                self.dynamic_align = self.dynamic_align.max(variable.align);
                Const::DynamicShared { offset, generic: false }
            }
            Space::Shared => {
                if let Some(&place) = self.places.get(&id) {
                    return Ok(value(place));
                }
                let place = self.static_shared.next_multiple_of(u64::from(variable.align));
                self.static_shared = place + variable.size;
                if self.static_shared > 1 << 20 {
                    return Err(ParseErrorKind::Unsupported("more than 1 MiB of shared memory".to_owned()));
                }
                self.places.insert(id, place);
                value(place)
            }
            Space::Param if self.is_kernel_param(id) => value(self.kernel_params[&id]),
            Space::Param | Space::Local | Space::Generic => value(self.frame_place(id)?),
        })
    }

    /// Generic address of a variable.
    pub(super) fn generic_place(&mut self, id: VarId) -> Result<Const, ParseErrorKind> {
        let variable = &self.tree.variables[id];
        let space = match variable.space {
            Space::Param if !self.is_kernel_param(id) => Space::Local,
            space => space,
        };
        Ok(match self.place(id, 0)? {
            Const::Value(place) => Const::Value(place + layout::window(space)),
            Const::DynamicShared { offset, .. } => Const::DynamicShared { offset, generic: true },
            other => other,
        })
    }

    /// Place of a variable in the frame of a thread.
    pub(super) fn frame_place(&mut self, id: VarId) -> Result<u64, ParseErrorKind> {
        if let Some(&place) = self.places.get(&id) {
            return Ok(place);
        }
        let variable = &self.tree.variables[id];
        let place = self.frame.next_multiple_of(u64::from(variable.align).max(1));
        self.frame = place + variable.size;
        if self.frame > 1 << 20 {
            return Err(ParseErrorKind::Unsupported("more than 1 MiB of local memory".to_owned()));
        }
        self.places.insert(id, place);
        Ok(place)
    }

    /// A branch that will be patched once labels are known.
    pub(super) fn branch_to(&mut self, label: &str, scope: usize) {
        self.branches.push((self.code.len(), label.to_owned(), scope));
    }

    pub(super) fn table_branch(&mut self, label: &str) {
        self.tables.push((self.code.len(), label.to_owned()));
    }

    /// Results and parameters of a function, which will be linked in.
    pub(super) fn call(&mut self, name: &str) -> Result<(&'t [VarId], &'t [VarId], usize), ParseErrorKind> {
        let tree = self.tree;
        let index = tree.functions.iter().position(|f| f.name == name && !f.entry);
        let Some(index) = index else { return Err(ParseErrorKind::UnknownName(name.to_owned())) };
        let function = &tree.functions[index];
        if function.body.is_none() {
            return Err(ParseErrorKind::Unsupported(format!("a call of {name}, which has no body,")));
        }
        self.edges.push((self.current, index));
        self.queue.push(index);
        Ok((&function.returns, &function.params, index))
    }

    /// Remembers that the next instruction calls a function.
    pub(super) fn patch_call(&mut self, index: usize) {
        self.calls.push((self.code.len(), index));
    }

    pub(super) fn variable_bytes(&self, id: VarId) -> u64 {
        self.tree.variables[id].size
    }

    fn error(&self, statement: &Statement, kind: ParseErrorKind) -> ParseError {
        let text = collapse(&self.source[statement.start..statement.end]);
        ParseError { line: statement.line, text, kind }
    }

    fn function(&mut self, index: usize) -> Result<(), ParseError> {
        let tree = self.tree;
        let function: &'t Function = &tree.functions[index];
        let Some(body) = &function.body else {
            let kind = ParseErrorKind::Unsupported("a kernel without a body".to_owned());
            return Err(ParseError { line: function.line, text: function.name.clone(), kind });
        };
        self.current = index;
        let start = self.code.len();
        self.starts.insert(index, start as u32);
        let mut bases = Bases::default();
        let take = |next: &mut u32, class: Class, each: u32| {
            let first = *next;
            *next += function.registers[class as usize] * each;
            first
        };
        bases.p = take(&mut self.p, Class::Pred, 1);
        bases.w16 = take(&mut self.w, Class::B16, 1);
        bases.w32 = take(&mut self.w, Class::B32, 1);
        bases.d64 = take(&mut self.d, Class::B64, 1);
        bases.d128 = take(&mut self.d, Class::B128, 2);
        for &id in &function.shared {
            self.place(id, 0).map_err(|kind| {
                let variable = &tree.variables[id];
                ParseError { line: variable.line, text: variable.name.clone(), kind }
            })?;
        }
        let mut labels: HashMap<(usize, &str), u32> = HashMap::new();
        let mut targets: HashMap<&str, (&Statement, &[String])> = HashMap::new();
        let mut last = None;
        for statement in body {
            match &statement.kind {
                StatementKind::Label(name) => {
                    if labels.insert((statement.scope, name), self.code.len() as u32).is_some() {
                        return Err(self.error(statement, ParseErrorKind::DuplicateName(name.clone())));
                    }
                }
                StatementKind::Targets(name, list) => {
                    targets.insert(name, (statement, list));
                }
                StatementKind::Instruction { guard, opcode, operands } => {
                    *self.opcodes.entry(opcode.clone()).or_default() += 1;
                    let guard = guard.map(|(reg, negated)| Guard {
                        p: P(reg.index + bases.p),
                        flip: if negated { u32::MAX } else { 0 },
                    });
                    self.instruction(function, statement, bases, guard, opcode, operands)?;
                    last = Some(statement);
                }
            }
        }
        // A body may end without a `ret`; whoever runs off its end has returned.
        let (line, text) = last.map_or((function.line, (0, 0)), |s| (s.line, (s.start as u32, s.end as u32)));
        self.code.push(Instr { op: Op::Return, guard: None, kind: super::op::Kind::Part, line, text });
        self.patch_branches(function, body, &labels, &targets)?;
        flow::join(&mut self.code[start..], start as u32);
        Ok(())
    }

    fn instruction(
        &mut self,
        function: &'t Function,
        statement: &'t Statement,
        bases: Bases,
        guard: Option<Guard>,
        opcode: &'t str,
        operands: &'t [Operand],
    ) -> Result<(), ParseError> {
        let mut parts = opcode.split('.');
        let base = parts.next().unwrap_or("");
        let mut cx = Cx {
            linker: self,
            opcode,
            mods: parts.collect(),
            operands,
            guard,
            bases,
            entry: function.entry,
            line: statement.line,
            text: (statement.start as u32, statement.end as u32),
            scope: statement.scope,
        };
        super::instruction(&mut cx, base).map_err(|kind| self.error(statement, kind))
    }

    fn patch_branches(
        &mut self,
        function: &Function,
        body: &[Statement],
        labels: &HashMap<(usize, &str), u32>,
        targets: &HashMap<&str, (&Statement, &[String])>,
    ) -> Result<(), ParseError> {
        let find = |name: &str, mut scope: usize| loop {
            if let Some(&at) = labels.get(&(scope, name)) {
                return Some(at);
            }
            let parent = function.scopes[scope];
            if parent == scope {
                return None;
            }
            scope = parent;
        };
        let statement_at = |code: &[Instr], at: usize| {
            body.iter()
                .find(|s| s.start as u32 == code[at].text.0)
                .expect("instructions come from statements")
        };
        for (at, label, scope) in std::mem::take(&mut self.branches) {
            let Some(found) = find(&label, scope) else {
                return Err(self.error(statement_at(&self.code, at), ParseErrorKind::UnknownName(label)));
            };
            if let Op::Branch { target, .. } = &mut self.code[at].op {
                *target = found;
            }
        }
        for (at, label) in std::mem::take(&mut self.tables) {
            let Some((statement, list)) = targets.get(label.as_str()) else {
                return Err(self.error(statement_at(&self.code, at), ParseErrorKind::UnknownName(label)));
            };
            let mut found = Vec::new();
            for name in *list {
                let Some(at) = find(name, statement.scope) else {
                    return Err(self.error(statement, ParseErrorKind::UnknownName(name.clone())));
                };
                found.push(at);
            }
            if let Op::BranchIndexed { targets, .. } = &mut self.code[at].op {
                *targets = found.into_boxed_slice();
            }
        }
        Ok(())
    }

    /// Registers are laid out once per function, so no function may be active twice.
    fn check_recursion(&self) -> Result<(), ParseError> {
        let mut depth: HashMap<usize, usize> = HashMap::new();
        let count = self.tree.functions.len();
        // Longest paths grow beyond the number of functions only on a cycle.
        for _ in 0..=count {
            let mut changed = false;
            for &(from, to) in &self.edges {
                let reached = depth.get(&from).copied().unwrap_or(0) + 1;
                let known = depth.entry(to).or_default();
                if *known < reached {
                    *known = reached;
                    changed = true;
                }
            }
            if !changed {
                return Ok(());
            }
        }
        let function = &self.tree.functions[self.edges[0].1];
        let kind = ParseErrorKind::Unsupported("recursion".to_owned());
        Err(ParseError { line: function.line, text: function.name.clone(), kind })
    }
}

/// A join that is not known yet.
pub(super) const UNJOINED: u32 = NO_JOIN;
