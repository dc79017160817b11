//! What a line of a chat says.

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing.
    Empty,
    /// Something for the model.
    Message(String),
    /// Something for the chat.
    Command(Command),
}

/// What a chat does beside asking the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Switches thinking.
    Think(bool),
    /// Limits the tokens of thoughts; `None` is no limit.
    Budget(Option<u64>),
    /// Sets the system text; an empty one is none.
    System(String),
    /// Forgets the turns.
    Clear,
    /// Lists the commands.
    Help,
    /// Ends the chat.
    Quit,
}

impl Line {
    /// Reads a line, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Empty);
        }
        let Some(command) = text.strip_prefix('/') else {
            return Ok(Self::Message(text.to_owned()));
        };
        if command.starts_with('/') {
            return Ok(Self::Message(command.to_owned()));
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let command = match name {
            "system" => return Ok(Self::Command(Command::System(rest.to_owned()))),
            "budget" if rest == "none" => return Ok(Self::Command(Command::Budget(None))),
            "budget" if rest.is_empty() => {
                return Err("`/budget` takes a number of tokens or `none`".to_owned());
            }
            "budget" => {
                let tokens = rest.parse().map_err(|_| {
                    format!("`/budget` takes a number of tokens or `none`, but `{rest}` follows it")
                })?;
                return Ok(Self::Command(Command::Budget(Some(tokens))));
            }
            "think" => Command::Think(true),
            "no_think" => Command::Think(false),
            "clear" => Command::Clear,
            "help" => Command::Help,
            "quit" => Command::Quit,
            _ => {
                return Err(format!(
                    "there is no command `/{name}` (`/help` lists them); a message that begins with a slash is written with two"
                ));
            }
        };
        if rest.is_empty() {
            Ok(Self::Command(command))
        } else {
            Err(format!("`/{name}` stands alone, but `{rest}` follows it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let command = |text| match Line::parse(text) {
            Ok(Line::Command(command)) => command,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(Line::parse(" \t"), Ok(Line::Empty));
        assert_eq!(Line::parse(" What is 1/2? "), Ok(Line::Message("What is 1/2?".to_owned())));
        assert_eq!(Line::parse("//usr/bin"), Ok(Line::Message("/usr/bin".to_owned())));
        assert_eq!(
            (command("/think"), command(" /no_think ")),
            (Command::Think(true), Command::Think(false))
        );
        assert_eq!(command("/system  Be brief. "), Command::System("Be brief.".to_owned()));
        assert_eq!(command("/system"), Command::System(String::new()));
        assert_eq!(command("/budget 0"), Command::Budget(Some(0)));
        assert_eq!(command("/budget  none "), Command::Budget(None));
        assert_eq!(
            [command("/clear"), command("/help"), command("/quit")],
            [Command::Clear, Command::Help, Command::Quit]
        );
        for (text, said) in [
            ("/usr/bin", "there is no command `/usr/bin`"),
            ("/", "there is no command `/`"),
            ("/Think", "there is no command `/Think`"),
            ("/think hard", "`/think` stands alone, but `hard` follows it"),
            ("/budget", "`/budget` takes a number of tokens or `none`"),
            ("/budget -1", "`/budget` takes a number of tokens or `none`, but `-1` follows it"),
            ("/budget 1.5", "`/budget` takes a number of tokens or `none`, but `1.5` follows it"),
        ] {
            let error = Line::parse(text).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
