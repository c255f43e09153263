//! The steps of `up`, as the server reports them and as a person or a program sees them.

use std::io::{IsTerminal, Write};

use serde::{Deserialize, Serialize};

use crate::cli;

/// The steps of a start, in order. Never more than eight: a person reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Keys and certificates.
    Certificates,
    /// The store, with what it had to repair.
    Store,
    /// The machine's namespace and links.
    Network,
    /// The API server, listening.
    Api,
    /// Controllers and scheduler.
    Controllers,
    /// Images and the containers that were already running.
    Runtime,
    /// The node is Ready.
    Node,
    /// The demo application answers.
    Demo,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Certificates,
        Self::Store,
        Self::Network,
        Self::Api,
        Self::Controllers,
        Self::Runtime,
        Self::Node,
        Self::Demo,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Certificates => "certificates",
            Self::Store => "store",
            Self::Api => "API server",
            Self::Controllers => "controllers and scheduler",
            Self::Network => "network",
            Self::Runtime => "container runtime",
            Self::Node => "node",
            Self::Demo => "demo application",
        }
    }

    fn number(self) -> usize {
        Self::ALL.iter().position(|step| *step == self).map_or(0, |index| index + 1)
    }
}

/// What happened to a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Event {
    /// It began.
    Started {
        /// Which.
        step: Step,
    },
    /// It ended well.
    #[serde(rename_all = "camelCase")]
    Done {
        /// Which.
        step: Step,
        /// How long it took, in milliseconds.
        millis: u64,
        /// What is worth knowing about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// It failed, and with it the start.
    Failed {
        /// What was attempted, on what, and why it failed, with a fix where one is known.
        error: String,
    },
    /// Everything runs.
    Ready,
}

/// Shows events.
pub struct Printer {
    style: Style,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Live,
    Plain,
    Json,
}

impl Printer {
    /// A printer on standard output.
    pub fn new(progress: cli::Progress) -> Self {
        let style = match progress {
            cli::Progress::Json => Style::Json,
            cli::Progress::Auto if std::io::stdout().is_terminal() => Style::Live,
            cli::Progress::Auto | cli::Progress::Plain => Style::Plain,
        };
        Self { style }
    }

    /// Whether a person reads along: only then is there more to say than the events.
    pub fn is_for_people(&self) -> bool {
        self.style != Style::Json
    }

    /// Shows one event. A reader that went away does not stop the start.
    pub fn show(&self, event: &Event) {
        let mut out = std::io::stdout().lock();
        let _ = match self.style {
            Style::Json => {
                serde_json::to_string(event).map_err(std::io::Error::other).and_then(|line| writeln!(out, "{line}"))
            }
            Style::Live => self.live(&mut out, event),
            Style::Plain => plain(&mut out, event),
        };
        let _ = out.flush();
    }

    fn live(&self, out: &mut impl Write, event: &Event) -> std::io::Result<()> {
        match event {
            Event::Started { step } => write!(out, "\r\x1b[K\x1b[2m•\x1b[0m {}", step.label()),
            Event::Done { step, millis, detail } => {
                write!(out, "\r\x1b[K\x1b[32m✓\x1b[0m {:<26}\x1b[2m{millis:>6} ms", step.label())?;
                if let Some(detail) = detail {
                    write!(out, "  {detail}")?;
                }
                writeln!(out, "\x1b[0m")
            }
            Event::Failed { .. } => writeln!(out, "\r\x1b[K"),
            Event::Ready => Ok(()),
        }
    }
}

fn plain(out: &mut impl Write, event: &Event) -> std::io::Result<()> {
    match event {
        Event::Done { step, millis, detail } => {
            write!(out, "[{}/{}] {}: {millis} ms", step.number(), Step::ALL.len(), step.label())?;
            if let Some(detail) = detail {
                write!(out, " ({detail})")?;
            }
            writeln!(out)
        }
        Event::Started { .. } | Event::Failed { .. } | Event::Ready => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_pipe_between_server_and_command() {
        for event in [
            Event::Started { step: Step::Api },
            Event::Done { step: Step::Node, millis: 12, detail: Some("10.89.0.2".into()) },
            Event::Failed { error: "no".into() },
            Event::Ready,
        ] {
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
        }
    }

    #[test]
    fn plain_lines_are_numbered() {
        let mut out = Vec::new();
        plain(&mut out, &Event::Done { step: Step::Api, millis: 3, detail: None }).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "[4/8] API server: 3 ms\n");
    }
}
