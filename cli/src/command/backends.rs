//! `backends`: which storages there are, and what they can do.

use clap::Args;
use serde::Serialize;
use strongroom::storage::{
    BatchSupport, Capabilities, Durability, ListOrder, RangeReads, Reach, SchemeEntry, SchemeInfo, Torn,
};

use crate::context::Context;
use crate::exit::Failure;
use crate::output::one_line;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct Arguments {}

#[derive(Serialize)]
struct Report {
    schemes: Vec<JsonScheme>,
}

#[derive(Serialize)]
struct JsonScheme {
    scheme: String,
    available: bool,
    feature: Option<String>,
    summary: String,
    forms: Vec<String>,
    parameters: Vec<JsonParameter>,
    capabilities: Option<JsonCapabilities>,
}

#[derive(Serialize)]
struct JsonParameter {
    name: String,
    meaning: String,
}

#[derive(Serialize)]
struct JsonCapabilities {
    reach: &'static str,
    durability: &'static str,
    torn: &'static str,
    batch: &'static str,
    list_order: &'static str,
    range_reads: &'static str,
    block_bytes_best: u32,
    block_bytes_max: u32,
}

impl JsonCapabilities {
    fn new(capabilities: Capabilities) -> Self {
        Self {
            reach: match capabilities.reach {
                Reach::Process => "process",
                Reach::Host => "host",
                Reach::Everywhere => "everywhere",
            },
            durability: match capabilities.durability {
                Durability::None => "none",
                Durability::Process => "process",
                Durability::Power => "power",
            },
            torn: match capabilities.torn {
                Torn::Never => "never",
                Torn::BeforeSync => "before-sync",
            },
            batch: match capabilities.batch {
                BatchSupport::Sequential => "sequential",
                BatchSupport::Atomic => "atomic",
            },
            list_order: match capabilities.list_order {
                ListOrder::Ascending => "ascending",
                ListOrder::Unordered => "unordered",
            },
            range_reads: match capabilities.range_reads {
                RangeReads::Native => "native",
                RangeReads::Emulated => "emulated",
            },
            block_bytes_best: capabilities.block_bytes_best,
            block_bytes_max: capabilities.block_bytes_max,
        }
    }

    fn line(&self) -> String {
        format!(
            "reach {}, durability {}, torn {}, batches {}, listings {}, ranges {}, blocks {} (at most {})",
            self.reach,
            self.durability,
            self.torn,
            self.batch,
            self.list_order,
            self.range_reads,
            units::size(self.block_bytes_best.into()),
            units::size(self.block_bytes_max.into()),
        )
    }
}

impl JsonScheme {
    fn new(entry: SchemeEntry) -> Self {
        let available = entry.info.is_some();
        let SchemeInfo { summary, forms, parameters, capabilities, .. } = entry.info.unwrap_or_default();
        Self {
            scheme: entry.scheme,
            available,
            feature: entry.feature,
            summary,
            forms,
            parameters: parameters.into_iter().map(|(name, meaning)| JsonParameter { name, meaning }).collect(),
            capabilities: capabilities.map(JsonCapabilities::new),
        }
    }

    fn lines(&self) -> Vec<String> {
        let feature = self.feature.as_ref();
        if !self.available {
            let feature = feature.map_or("", String::as_str);
            return vec![format!("not built in: turn on the feature `{feature}`")];
        }
        let brought = feature.map_or("registered by this program".to_owned(), |feature| format!("feature `{feature}`"));
        let summary = if self.summary.is_empty() { "(says nothing of itself)" } else { &self.summary };
        let mut lines = vec![format!("{summary}; {brought}")];
        if !self.forms.is_empty() {
            lines.push(self.forms.join(", "));
        }
        for parameter in &self.parameters {
            lines.push(format!("?{}=  {}", parameter.name, parameter.meaning));
        }
        lines.extend(self.capabilities.as_ref().map(JsonCapabilities::line));
        lines
    }
}

pub(crate) fn run(_: &Arguments, context: &mut Context) -> Result<(), Failure> {
    // A wrapper that was not built in is no storage that could be.
    let shown = |entry: &SchemeEntry| entry.info.is_some() || !entry.scheme.contains('+');
    let schemes = context.registry.entries().into_iter().filter(shown).map(JsonScheme::new).collect();
    let report = Report { schemes };
    if context.output.json() {
        return context.output.document("strongroom/backends/1", &report);
    }
    for scheme in &report.schemes {
        for (number, line) in scheme.lines().iter().enumerate() {
            let head = if number == 0 { scheme.scheme.as_str() } else { "" };
            context.output.line(&one_line(&format!("{head:<8} {line}")))?;
        }
    }
    Ok(())
}
