use super::Capabilities;

/// What people are told of a scheme: its part in `strongroom backends`.
///
/// ```
/// use strongroom_core::storage::SchemeInfo;
/// let info = SchemeInfo::new("a ZIP archive").form("zip:file.zip").parameter("level", "compression, 0 to 9");
/// assert_eq!(info.forms, ["zip:file.zip"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemeInfo {
    /// What it stores in, in a few words.
    pub summary: String,
    /// How its URIs look.
    pub forms: Vec<String>,
    /// The parameters of its URIs: name, and meaning in a few words.
    pub parameters: Vec<(String, String)>,
    /// What its storages can do, where that is the same for all.
    pub capabilities: Option<Capabilities>,
}

impl SchemeInfo {
    /// A scheme that stores in this.
    #[must_use]
    pub fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), ..Self::default() }
    }

    /// Adds a way to write its URIs.
    #[must_use]
    pub fn form(mut self, form: impl Into<String>) -> Self {
        self.forms.push(form.into());
        self
    }

    /// Adds a parameter of its URIs.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, meaning: impl Into<String>) -> Self {
        self.parameters.push((name.into(), meaning.into()));
        self
    }

    /// States what its storages can do.
    #[must_use]
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = Some(capabilities);
        self
    }
}

/// One scheme of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemeEntry {
    /// The scheme.
    pub scheme: String,
    /// The feature of the `strongroom` crate that brings it; `None` for one that an application registered.
    pub feature: Option<String>,
    /// What it is; `None` where it was not built in.
    pub info: Option<SchemeInfo>,
}

impl SchemeEntry {
    pub(super) fn new(scheme: &str, feature: Option<&String>, info: Option<SchemeInfo>) -> Self {
        Self { scheme: scheme.to_owned(), feature: feature.cloned(), info }
    }
}
