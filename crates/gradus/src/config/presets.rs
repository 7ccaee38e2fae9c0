//! The presets: named layers over the defaults. A new preset is one entry here.

use toml::{Table, Value};

use super::overlay::closest;
use crate::intra_class::IntraClassConfig;

/// A named starting point.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// Its name, as `--preset` takes it.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    intra_class: fn() -> IntraClassConfig,
    /// The kind of `[embedding-augmentation]`, at its defaults, where there is one.
    augmentation: Option<&'static str>,
    /// What it sets besides, where the network starts from random weights and nobody says otherwise: `KEY=VALUE`.
    from_random_weights: &'static [&'static str],
    /// The same where a pretrained trunk is trained on.
    with_trained_trunk: &'static [&'static str],
}

/// All presets, sorted by name.
pub const ALL: &[Preset] = &[
    Preset {
        name: "gradus",
        about: "Proxy-Anchor on real members of each class, held to the order of the untouched pretrained network, and, unless that is trained on, on generated ones",
        intra_class: IntraClassConfig::members,
        augmentation: Some("class-covariance"),
        // A wide head that is not ranked learns classes undisturbed and teaches the embedding, which then keeps as much order
        // for less recall (docs/results.md). On a frozen trunk and a pretrained one it moves along the same line, so not there.
        from_random_weights: &["auxiliary-loss.s2sd.widths=[512]", "intra-class.weight=1.5"],
        // Where the trunk itself learns, samples generated along the directions in which classes vary make it forget these
        // directions: pose, on COIL-100 (docs/results.md). Without them, less weight costs less recall.
        with_trained_trunk: &["embedding-augmentation=none", "intra-class.weight=0.5"],
    },
    Preset {
        name: "proxy-anchor",
        about: "Proxy-Anchor alone (Kim et al., CVPR 2020): the baseline",
        intra_class: IntraClassConfig::disabled,
        augmentation: None,
        from_random_weights: &[],
        with_trained_trunk: &[],
    },
    Preset {
        name: "sgar",
        about: "the method as the paper describes it (Liu et al., arXiv 2304.10941)",
        intra_class: IntraClassConfig::sgar,
        augmentation: None,
        from_random_weights: &[],
        with_trained_trunk: &[],
    },
    Preset {
        name: "sgar-released",
        about: "the method as its authors' code runs, every quirk behind a named switch",
        intra_class: IntraClassConfig::sgar_released,
        augmentation: None,
        from_random_weights: &[],
        with_trained_trunk: &[],
    },
];

/// The preset of that name.
///
/// # Errors
/// If there is none, with the known names and a suggestion.
pub fn find(name: &str) -> Result<&'static Preset, String> {
    ALL.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|preset| preset.name).collect();
        let hint = closest(name, names.iter().copied())
            .map(|right| format!("; did you mean `{right}`?"))
            .unwrap_or_default();
        format!("unknown preset `{name}`: expected one of {}{hint}", names.join(", "))
    })
}

impl Preset {
    /// The preset as a layer.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        if let Ok(section) = Value::try_from((self.intra_class)()) {
            table.insert("intra-class".to_owned(), section);
        }
        if let Some(kind) = self.augmentation {
            let section = Table::from_iter([(kind.to_owned(), Value::Table(Table::new()))]);
            table.insert("embedding-augmentation".to_owned(), Value::Table(section));
        }
        table
    }

    /// What it sets besides, where the network starts from random weights and nobody says otherwise: `KEY=VALUE`.
    #[must_use]
    pub fn from_random_weights(&self) -> &'static [&'static str] {
        self.from_random_weights
    }

    /// What it sets besides, where a pretrained trunk is trained on and nobody says otherwise: `KEY=VALUE`.
    #[must_use]
    pub fn with_trained_trunk(&self) -> &'static [&'static str] {
        self.with_trained_trunk
    }
}
