//! Blocks and their statements.

use super::*;

impl<'a> Parser<'a> {
    pub(super) fn block(&mut self) -> Parsed<Block> {
        self.keyword("block")?;
        let mut builder =
            BlockBuilder::new(self.block_name(
                "the block's name: a lower-case letter, then lower-case letters, digits and `_`",
            )?);
        let mut scope = Scope::new();
        self.punct('(')?;
        self.list(')', |this| {
            let at = this.at();
            if scope.len() == MAX_STATEMENTS {
                return this.expected(format!("at most {MAX_STATEMENTS} inputs"));
            }
            let name = this.name('%', "the name of an input")?;
            this.punct(':')?;
            let value = builder.input(name, this.ty()?);
            this.define(&mut scope, at, ('%', name), value)
        })?;
        self.punct('{')?;
        for _ in 0..MAX_STATEMENTS {
            match self.peek() {
                Token::Word("return") => {
                    self.outputs(&mut builder, &scope)?;
                    self.punct('}')?;
                    return Ok(builder.finish());
                }
                Token::Word("state" | "weight") => self.leaf(&mut builder, &mut scope)?,
                Token::Word("table") => self.table(&mut builder, &mut scope)?,
                Token::Name('%' | '&', _) => self.op(&mut builder, &mut scope)?,
                _ => return self.expected("`state`, `weight`, `table`, an op's results, or `return`"),
            }
        }
        self.expected(format!("at most {MAX_STATEMENTS} statements in a block"))
    }

    /// Brings a value into scope under a name that is still free.
    fn define(&self, scope: &mut Scope<'a>, at: Position, name: (char, &'a str), value: Value) -> Parsed<()> {
        match scope.insert(name, value) {
            None => Ok(()),
            Some(_) => self.wrong(at, "a name that is not yet defined", format!("`{}{}`", name.0, name.1)),
        }
    }

    /// `state &name: type` and `weight @name: type`.
    fn leaf(&mut self, builder: &mut BlockBuilder, scope: &mut Scope<'a>) -> Parsed<()> {
        let is_state = self.word("`state` or `weight`")? == "state";
        let at = self.at();
        let (sigil, what) =
            if is_state { ('&', "the name of a state") } else { ('@', "the name of a weight") };
        let name = self.name(sigil, what)?;
        if is_state && name.contains('.') {
            return self.wrong(at, "a state's name without `.`", format!("`&{name}`"));
        }
        self.punct(':')?;
        let ty = self.ty()?;
        let value = if is_state { builder.state(name, ty) } else { builder.weight(name, ty) };
        self.define(scope, at, (sigil, name), value)
    }

    /// `table #0 = rope {…}`.
    fn table(&mut self, builder: &mut BlockBuilder, scope: &mut Scope<'a>) -> Parsed<()> {
        self.keyword("table")?;
        let at = self.at();
        let name = self.name('#', "the number of a table")?;
        self.punct('=')?;
        self.keyword("rope")?;
        self.punct('{')?;
        let theta = self.field("theta", Self::float)?;
        let head_dim = self.next_field("head_dim", |this| this.int("an integer"))?;
        let positions = self.next_field("positions", |this| this.int("an integer"))?;
        let scaling = if self.peek() == Token::Punct(',') {
            Some(Llama3Scaling {
                factor: self.next_field("factor", Self::float)?,
                low_freq_factor: self.next_field("low_freq_factor", Self::float)?,
                high_freq_factor: self.next_field("high_freq_factor", Self::float)?,
                original_context: self.next_field("original_context", |this| this.int("an integer"))?,
            })
        } else {
            None
        };
        self.punct('}')?;
        let value = builder.table(RopeTable { theta, head_dim, positions, scaling });
        self.define(scope, at, ('#', name), value)
    }

    fn field<T>(&mut self, name: &str, value: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.keyword(name)?;
        self.punct(':')?;
        value(self)
    }

    fn next_field<T>(&mut self, name: &str, value: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.punct(',')?;
        self.field(name, value)
    }

    /// `results = op(operands) {attributes} : types`.
    fn op(&mut self, builder: &mut BlockBuilder, scope: &mut Scope<'a>) -> Parsed<()> {
        let mut names = Vec::new();
        loop {
            match self.peek() {
                Token::Name(sigil @ ('%' | '&'), name) => names.push((self.at(), (sigil, name))),
                _ => return self.expected("the name of a result: `%0`, `&state.1`"),
            }
            self.bump();
            if !self.eat(Token::Punct(',')) {
                break;
            }
        }
        self.punct('=')?;
        let at = self.at();
        let op = match self.peek() {
            Token::Word(word) => ops::op(word),
            _ => None,
        };
        let Some(op) = op else { return self.expected("the name of an op") };
        self.bump();
        self.punct('(')?;
        let operands = self.list(')', |this| this.operand(builder, scope))?;
        let attrs = self.attrs(op)?;
        self.check_arity(builder, at, op, &operands)?;
        let values = match builder.results(op.name, &operands, attrs) {
            Ok(values) => values,
            Err(BuildError::Type(error)) => {
                let (wanted, found) = misfit(error);
                return self.wrong(at, wanted, found);
            }
            Err(error @ BuildError::UnknownOp(_)) => return self.wrong(at, "an op", error.to_string()),
        };
        self.punct(':')?;
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.punct(',')?;
            }
            let (at, inferred) = (self.at(), builder.ty(*value));
            let written = self.ty()?;
            if written != inferred {
                return self.wrong(at, format!("`{inferred}`"), format!("`{written}`"));
            }
        }
        if names.len() != values.len() {
            let wanted = format!("{} results of `{}`", values.len(), op.name);
            return self.wrong(names[0].0, wanted, names.len().to_string());
        }
        for ((at, name), value) in names.into_iter().zip(values) {
            self.define(scope, at, name, value)?;
        }
        Ok(())
    }

    /// The number of operands that are written: step inputs may be left out, all together.
    fn check_arity(&self, builder: &BlockBuilder, at: Position, op: Op, operands: &[Value]) -> Parsed<()> {
        let count = |wanted: fn(OperandKind) -> bool| op.operands.iter().filter(|o| wanted(o.kind)).count();
        let steps_written = operands.iter().any(|value| builder.is_step(*value));
        let implied = if steps_written { 0 } else { count(|kind| matches!(kind, OperandKind::Step(_))) };
        if op.places(operands.len() + implied).is_some() {
            return Ok(());
        }
        let most = op.operands.len() - implied;
        let least = most - count(|kind| kind == OperandKind::OptionalWeight);
        let range = if least == most { most.to_string() } else { format!("{least} or {most}") };
        let wanted = format!("`{}` to have operands: {range}", op.name);
        self.wrong(at, wanted, operands.len().to_string())
    }

    fn operand(&mut self, builder: &mut BlockBuilder, scope: &Scope<'a>) -> Parsed<Value> {
        match self.peek() {
            Token::Name('$', name) => match name.parse::<StepInput>() {
                Ok(input) => {
                    self.bump();
                    Ok(builder.step(input))
                }
                Err(_) => self.expected("a step input (`$tokens`, `$positions`, …)"),
            },
            Token::Name(..) => self.value(scope),
            _ => self.expected("an operand: `%`, `@`, `&`, `#` or `$` and a name"),
        }
    }

    /// A name that is in scope.
    fn value(&mut self, scope: &Scope<'a>) -> Parsed<Value> {
        let Token::Name(sigil, name) = self.peek() else { return self.expected("the name of a value") };
        match scope.get(&(sigil, name)) {
            Some(value) => {
                self.bump();
                Ok(*value)
            }
            None => self.expected("a name that is defined above"),
        }
    }

    /// `{name: value, …}` in any order, each attribute of the op once; nothing where it has none.
    fn attrs(&mut self, op: Op) -> Parsed<Attrs> {
        let mut found: Vec<Option<Attr>> = vec![None; op.attrs.len()];
        let at = self.at();
        if op.attrs.is_empty() {
            return Ok(Attrs::new());
        }
        self.punct('{')?;
        self.list('}', |this| {
            let at = this.at();
            let name = this.word("the name of an attribute")?;
            let Some(index) = op.attrs.iter().position(|spec| spec.name == name) else {
                return this.wrong(at, attribute_list(op), format!("`{name}`"));
            };
            this.punct(':')?;
            let attr = match op.attrs[index].kind {
                AttrKind::Int => Attr::Int(this.int("an integer")?),
                AttrKind::Float => Attr::Float(this.float()?),
                AttrKind::Dtype => Attr::Dtype(this.dtype()?),
            };
            match found[index].replace(attr) {
                None => Ok(()),
                Some(_) => this.wrong(at, "each attribute once", format!("a second `{name}`")),
            }
        })?;
        let missing = op.attrs.iter().zip(&found).find(|(_, attr)| attr.is_none());
        if let Some((spec, _)) = missing {
            return self.wrong(at, attribute_list(op), format!("no `{}`", spec.name));
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// `return name = %value, …`.
    fn outputs(&mut self, builder: &mut BlockBuilder, scope: &Scope<'a>) -> Parsed<()> {
        self.keyword("return")?;
        loop {
            let name = self.word("the name of an output")?;
            self.punct('=')?;
            builder.output(name, self.value(scope)?);
            if !self.eat(Token::Punct(',')) {
                return Ok(());
            }
        }
    }
}

fn attribute_list(op: Op) -> String {
    let names: Vec<_> = op.attrs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    format!("the attributes {} of `{}`", names.join(", "), op.name)
}

/// What an op wanted, and what it found.
fn misfit(error: TypeError) -> (String, String) {
    match error {
        TypeError::Operand { op, operand, wanted, found } => {
            (format!("{wanted} as `{operand}` of `{op}`"), found)
        }
        TypeError::Arity { op, wanted, found } => {
            (format!("`{op}` to have operands: {wanted}"), found.to_string())
        }
        TypeError::Attrs { op, wanted, found } => (format!("the attributes {wanted} of `{op}`"), found),
        TypeError::Attr { op, attr, wanted, found } => (format!("`{attr}` of `{op}` to {wanted}"), found),
    }
}
