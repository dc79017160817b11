//! The model file: TOML read with spans, so that every complaint has a line and a caret.

mod fields;
mod layers;
mod parts;
pub(crate) mod ranges;
pub(crate) mod resolve;

use toml::de::{DeArray, DeTable, DeValue};

use self::fields::{Fields, Value, entries, read};
use self::layers::Library;
use self::parts::Defaults;
use crate::diagnostic::{Diagnostics, Sink, suggest};
use crate::model::{Dtype, Embedding, Head, Model};
use crate::validate;

const DTYPES: [Dtype; 2] = [Dtype::Bf16, Dtype::F32];

impl Model {
    /// Reads a model file. `file` is its name in the diagnostics.
    ///
    /// # Errors
    ///
    /// Every problem that was found, each with its place.
    pub fn parse_toml(source: &str, file: &str) -> Result<Self, Diagnostics> {
        let mut sink = Sink::new(source, file);
        // Every key that a model needs would be missing, and say so.
        if source.trim().is_empty() {
            sink.error(&(0..0), "the file is empty");
            return Err(sink.finish());
        }
        let (document, errors) = DeTable::parse_recoverable(source);
        for error in &errors {
            sink.error(&error.span().unwrap_or(0..0), error.message().to_owned());
        }
        if !sink.is_empty() {
            return Err(sink.finish());
        }
        match model(&mut sink, document.get_ref()) {
            Some(model) if sink.is_empty() => Ok(model),
            // A `None` comes with its reason; this line only makes that hold for sure.
            None if sink.is_empty() => {
                sink.error(&(0..0), "the model is incomplete");
                Err(sink.finish())
            }
            _ => Err(sink.finish()),
        }
    }
}

fn model<'a>(sink: &mut Sink<'_>, document: &'a DeTable<'a>) -> Option<Model> {
    let mut top = Fields::new("the model", 0..0, document);
    let name: Option<&str> = top.need(sink, "name");
    let description: &str = top.get(sink, "description").unwrap_or_default();
    let dtype = dtype(sink, &mut top);
    let hidden: Option<u64> = top.need(sink, "hidden");
    let vocab: Option<u64> = top.need(sink, "vocab");
    let max_context: Option<u64> = top.need(sink, "max_context");
    let norm_eps: Option<f64> = top.get(sink, "norm_eps");
    let bos = top.get::<&Value<'_>>(sink, "bos").map(|value| token(sink, "bos", value, vocab));
    let eos = eos(sink, &mut top, vocab);
    top.report(
        sink,
        [
            hidden.and_then(|n| validate::count("hidden", n, validate::MAX_DIM)),
            vocab.and_then(|n| validate::count("vocab", n, validate::MAX_DIM)),
            max_context.and_then(|n| validate::count("max_context", n, validate::MAX_CONTEXT)),
            norm_eps.and_then(|eps| validate::eps("norm_eps", eps)),
        ]
        .into_iter()
        .flatten(),
    );
    if let Some(bad) = name.filter(|name| !validate::is_model_name(name)) {
        let message = format!("`{}` is not a model name", bad.escape_debug());
        let help = "letters, digits, `.`, `_` and `-`, for it becomes part of file names";
        sink.error_with_help(&top.span("name"), message, help.to_owned());
    }
    if norm_eps.is_none() && !top.has("norm_eps") {
        top.missing(sink, "norm_eps", "a number (norms may replace it by an `eps` of their own)");
    }

    let defaults = Defaults { hidden, norm_eps };
    let embedding = top.need_table(sink, "embedding").and_then(|mut table| {
        let tensor = parts::tensor(sink, &mut table, "tensor");
        table.finish(sink);
        Some(Embedding { tensor: tensor? })
    });
    let head = top.need_table(sink, "head").and_then(|table| head(sink, table, defaults));
    let root_aliases = aliases(sink, &mut top);
    let library = library(sink, &mut top);
    let layers =
        top.need_table(sink, "layers").and_then(|table| layers::read_layers(sink, table, &library, defaults));
    top.finish(sink);

    let layers = layers?;
    let model = Model {
        name: name?.to_owned(),
        description: description.to_owned(),
        dtype: dtype?,
        hidden: hidden?,
        vocab: vocab?,
        max_context: max_context?,
        bos: match bos {
            None => None,
            Some(bos) => Some(bos?),
        },
        eos: eos?,
        embedding: embedding?,
        head: head?,
        layer_prefix: layers.prefix,
        root_aliases: root_aliases?,
        blocks: layers.blocks,
        layers: layers.slots,
    };
    if let Some(name) = sink.is_empty().then(|| model.repeated_tensor()).flatten() {
        let help = "every weight has its own tensor; a head that shares the embedding says `tied = true`";
        sink.error_with_help(&layers.header, format!("two weights are named `{name}`"), help.to_owned());
    }
    Some(model)
}

fn dtype(sink: &mut Sink<'_>, top: &mut Fields<'_>) -> Option<Dtype> {
    let name: &str = top.need(sink, "dtype")?;
    let found = DTYPES.into_iter().find(|dtype| dtype.name() == name);
    if found.is_none() {
        let message = format!("unknown dtype `{name}`");
        sink.error_with_help(&top.span("dtype"), message, suggest(name, DTYPES.map(Dtype::name)));
    }
    found
}

fn token(sink: &mut Sink<'_>, key: &str, value: &Value<'_>, vocab: Option<u64>) -> Option<u32> {
    let token: u64 = read(sink, key, value)?;
    let limit = vocab.unwrap_or(validate::MAX_DIM);
    if token >= limit {
        sink.error(&value.span(), format!("token {token} is outside the vocabulary of {limit}"));
        return None;
    }
    u32::try_from(token).ok()
}

fn eos(sink: &mut Sink<'_>, top: &mut Fields<'_>, vocab: Option<u64>) -> Option<Vec<u32>> {
    let value: &Value<'_> = top.need_as(sink, "eos", "a token id or a list of them")?;
    match value.get_ref() {
        DeValue::Array(list) => list.iter().map(|value| token(sink, "eos", value, vocab)).collect(),
        _ => token(sink, "eos", value, vocab).map(|token| vec![token]),
    }
}

fn head(sink: &mut Sink<'_>, mut table: Fields<'_>, defaults: Defaults) -> Option<Head> {
    let norm = parts::norm(sink, &mut table, "norm", defaults);
    let tied = table.get(sink, "tied").unwrap_or(false);
    table.know("tensor");
    let tensor = match (tied, table.has("tensor")) {
        (true, true) => {
            sink.error(&table.span("tied"), "a tied head has no `tensor` of its own");
            None
        }
        (true, false) => Some(None),
        (false, true) => parts::tensor(sink, &mut table, "tensor").map(Some),
        (false, false) => {
            table.missing(sink, "tensor", "a string (or `tied = true`)");
            None
        }
    };
    table.finish(sink);
    Some(Head { norm: norm?, tensor: tensor? })
}

fn aliases(sink: &mut Sink<'_>, top: &mut Fields<'_>) -> Option<Vec<(String, String)>> {
    let Some(list) = top.get::<&DeArray<'_>>(sink, "aliases") else {
        return if top.has("aliases") { None } else { Some(vec![]) };
    };
    let one = |value| {
        let table: &DeTable<'_> = read(sink, "aliases", value)?;
        let mut fields = Fields::new("an alias", value.span(), table);
        let prefix = parts::tensor(sink, &mut fields, "prefix");
        let also = parts::tensor(sink, &mut fields, "also");
        fields.finish(sink);
        prefix.zip(also)
    };
    list.iter().map(one).collect()
}

/// Reads the names of parts and blocks; a part is judged where a layer uses it, since layers may change it.
fn library<'a>(sink: &mut Sink<'_>, top: &mut Fields<'a>) -> Library<'a> {
    let mut library = Library::default();
    for entry in top.get::<&DeTable<'a>>(sink, "parts").map(entries).unwrap_or_default() {
        if let Some(table) = read(sink, entry.key, entry.value) {
            library.add_part(sink, &entry, table);
        }
    }
    for entry in top.get::<&DeTable<'a>>(sink, "blocks").map(entries).unwrap_or_default() {
        library.add_block(sink, &entry);
    }
    library
}
