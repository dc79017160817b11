//! A hook of one's own: an answer of at most so many lines.
//!
//! ```text
//! cargo run --release -p nemort --example line_limit -- out.nemo CHECKPOINT 3 "Tell me about the river."
//! ```

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use nemo_ir::artifact::Artifact;
use nemort::engine::{Engine, EngineOptions};
use nemort::session::{Grown, Hook, Request, Session, Verdict};
use nemort::text::{ChatTemplate, Conversation, Frame, GenerationSettings, Text, TextStream};
use nemort::weights::WeightsSource;

/// Stops a sequence at the end of its last line.
struct LineLimit {
    stream: TextStream,
    left: usize,
}

impl Hook for LineLimit {
    /// Asked after each token, which stands: the answer is about what follows. `Verdict::Force` would name the
    /// tokens that come next.
    fn after(&mut self, token: u32, _grown: Grown<'_>) -> Verdict {
        let piece = match self.stream.push(token) {
            Ok(piece) => piece,
            Err(error) => return Verdict::Stop(error.to_string()),
        };
        self.left = self.left.saturating_sub(piece.matches('\n').count());
        if self.left == 0 { Verdict::Stop("lines".to_owned()) } else { Verdict::Continue }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [artifact, checkpoint, lines, prompt] = &arguments[..] else {
        return Err("line_limit OUT.NEMO CHECKPOINT LINES PROMPT".into());
    };
    let checkpoint = Path::new(checkpoint);
    let artifact = Artifact::open(Path::new(artifact))?;
    let options = EngineOptions::new(WeightsSource::Directory(checkpoint.to_owned()));
    let mut engine = Engine::load(&artifact, &options)?;
    let text = Arc::new(Text::open(checkpoint, engine.limits().vocab)?);
    let settings = GenerationSettings::open(checkpoint)?;

    let rendered = ChatTemplate::open(checkpoint)?.render(&Conversation::prompt(prompt))?;
    let mut request = Request::new(text.encode(&rendered, Frame::Written)?, 200);
    request.sampling = settings.sampling;
    request.end = settings.end;
    // A hook belongs to one sequence; another request takes another one.
    request.hooks =
        vec![Box::new(LineLimit { stream: TextStream::new(Arc::clone(&text)), left: lines.parse()? })];

    let (tokens, finish) = Session::new(&mut engine).generate(request, |_| ControlFlow::Continue(()))?;
    println!("{}\nstopped by {}", text.decode(&tokens)?.trim_end(), finish.name());
    Ok(())
}
