//! From a study file to its runs, resolved and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gradus_core::data::Layout;
use gradus_core::data::split::ClassFold;

use super::file::{layer, no_such};
use super::{ArmEntry, DataEntry, ReferenceConfig, StudyError, StudyFile};
use crate::config::{Config, Overlay, presets, resolve_from_start};
use crate::models::HeadStart;
use crate::train::PreparedData;

/// The arm that is not trained.
pub const UNTRAINED: &str = "untrained";

/// One way to train on one data set with one seed.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// Name of the data set; empty where there is one without a name.
    pub data: String,
    /// Name of the arm.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// Which fold of the training classes validates, in a cross-validation.
    pub fold: Option<usize>,
    /// Whether it is measured on the validation classes and the test classes stay unseen: a trial of a search.
    pub on_validation: bool,
    /// The resolved configuration.
    pub config: Config,
}

impl PlannedRun {
    /// Its folder inside that of the study: `DATA/ARM-seed-N`, `DATA/ARM-seed-N-fold-F`, under `tune` for trials.
    #[must_use]
    pub fn place(&self) -> PathBuf {
        let fold = self.fold.map_or_else(String::new, |fold| format!("-fold-{fold}"));
        let below = if self.on_validation { "tune" } else { "" };
        let name = format!("{}-seed-{}{fold}", self.arm, self.seed);
        Path::new(below).join(&self.data).join(name)
    }

    /// The run in words.
    #[must_use]
    pub fn name(&self) -> String {
        let on = if self.data.is_empty() {
            String::new()
        } else {
            format!(" on {}", self.data)
        };
        let fold = self.fold.map_or_else(String::new, |fold| format!(", fold {fold}"));
        format!("{}{on}, seed {}{fold}", self.arm, self.seed)
    }
}

/// Every run of a study.
#[derive(Debug, Clone)]
pub struct Study {
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The arm that differences are taken to.
    pub baseline: String,
    /// Names of the data sets.
    pub data: Vec<String>,
    /// Names of the arms, [`UNTRAINED`] first where it takes part.
    pub arms: Vec<String>,
    /// The runs: data set by data set, seed by seed, arm by arm.
    pub runs: Vec<PlannedRun>,
    /// The network whose order inside classes is compared with.
    pub reference: Option<ReferenceConfig>,
}

impl Study {
    /// Every data set with every seed and every arm.
    ///
    /// Precedence: defaults < preset < `[base]` < `[data.NAME]` < `[arm.NAME]` < settings that a search chose < flags < the seed.
    ///
    /// # Errors
    /// The first arm or data set that is not accepted, by name.
    pub fn of_file(source: &StudySource<'_>, chosen: &BTreeMap<String, Settings>) -> Result<Self, StudyError> {
        let file = source.file;
        source.check()?;
        let none = Settings::new();
        let mut configure = |data: &str, arm: &str, seed: u64| {
            let layers = source.layers(data, arm, chosen.get(arm).unwrap_or(&none))?;
            resolve(layers, seed)
        };
        Self::new(
            Parts {
                seeds: file.seeds.clone(),
                baseline: file.baseline.clone(),
                untrained: file.untrained,
                data: file.data.iter().map(|(name, _)| name.clone()).collect(),
                arms: file.arms.iter().map(|(name, _)| name.clone()).collect(),
                reference: file.reference.clone().map(|reference| reference.at_root(source.root)),
            },
            &mut configure,
        )
    }

    /// The same from parts: `configure(data, arm, seed)` resolves a run.
    ///
    /// # Errors
    /// If something is named twice or not at all, or a configuration is not accepted.
    pub fn new(
        parts: Parts,
        configure: &mut dyn FnMut(&str, &str, u64) -> Result<Config, String>,
    ) -> Result<Self, StudyError> {
        let refused = |problem: String| Err(StudyError::Plan(problem));
        if parts.arms.is_empty() {
            return refused(
                "the study names no arm: add sections such as [arm.proxy-anchor] and [arm.gradus]".to_owned(),
            );
        }
        if parts.seeds.is_empty() {
            return refused("the study has no seed: give at least one, such as seeds = [0, 1, 2, 3, 4]".to_owned());
        }
        let mut seen = BTreeSet::new();
        if let Some(seed) = parts.seeds.iter().find(|seed| !seen.insert(**seed)) {
            return refused(format!("seed {seed} is asked for twice: name every seed once"));
        }
        let mut names = BTreeSet::new();
        for arm in &parts.arms {
            if arm == UNTRAINED || !names.insert(arm) {
                return refused(format!(
                    "an arm called {arm} is there twice ({UNTRAINED} is always there): name every preset, loss and arm once, and not a \
                     preset and a loss of one name"
                ));
            }
        }
        let first = || {
            parts
                .arms
                .iter()
                .find(|arm| *arm == "proxy-anchor")
                .unwrap_or(&parts.arms[0])
                .clone()
        };
        let baseline = parts.baseline.clone().unwrap_or_else(first);
        let known = parts.arms.iter().map(String::as_str);
        if !parts.arms.contains(&baseline) {
            return refused(format!("baseline: {}", no_such("arm", &baseline, known)));
        }
        let mut runs = Vec::new();
        for data in &parts.data {
            for &seed in &parts.seeds {
                let mut resolved = |arm: &str| {
                    configure(data, arm, seed).map_err(|problem| StudyError::Refused {
                        what: on(arm, data),
                        problem,
                    })
                };
                let configs: Vec<Config> = parts.arms.iter().map(|arm| resolved(arm)).collect::<Result<_, _>>()?;
                if parts.untrained {
                    let mut config = configs[0].clone();
                    config.train.epochs = 0;
                    if config.model.weights.is_none() {
                        config.model.initial = HeadStart::Random;
                    }
                    runs.push(PlannedRun {
                        data: data.clone(),
                        arm: UNTRAINED.to_owned(),
                        seed,
                        fold: None,
                        on_validation: false,
                        config,
                    });
                }
                for (arm, config) in parts.arms.iter().zip(configs) {
                    if let Some(reference) = parts
                        .reference
                        .as_ref()
                        .filter(|reference| reference.is_seen_by(&config))
                    {
                        return Err(StudyError::Refused {
                            what: on(arm, data),
                            problem: format!(
                                "it has the network of [reference] ({}) as its own or as its teacher: the reference must be a network \
                                 that no arm saw",
                                reference.backbone().map_or("unknown", |backbone| backbone.info().name)
                            ),
                        });
                    }
                    runs.push(PlannedRun {
                        data: data.clone(),
                        arm: arm.clone(),
                        seed,
                        fold: None,
                        on_validation: false,
                        config,
                    });
                }
            }
        }
        let untrained = parts.untrained.then(|| UNTRAINED.to_owned());
        Ok(Self {
            seeds: parts.seeds,
            baseline,
            data: parts.data,
            arms: untrained.into_iter().chain(parts.arms).collect(),
            runs,
            reference: parts.reference,
        })
    }

    /// The same study with the training classes of every trained run cut into `folds`, each of which validates once: K runs in place
    /// of one (the protocol of Musgrave et al., A Metric Learning Reality Check, ECCV 2020). Every fold's best epoch is measured on
    /// the test classes, and the measures of a seed are the means over its folds.
    ///
    /// # Errors
    /// Fewer than two folds.
    pub fn with_folds(mut self, folds: usize) -> Result<Self, StudyError> {
        if folds < 2 {
            return Err(StudyError::Plan(format!(
                "{folds} folds: expected at least 2, four are usual"
            )));
        }
        let split = |run: PlannedRun| -> Vec<PlannedRun> {
            if run.arm == UNTRAINED {
                return vec![run];
            }
            let fold = |fold: usize| {
                let mut run = run.clone();
                run.fold = Some(fold);
                run.config.data.validation_fold = Some(ClassFold {
                    number: fold,
                    of: folds,
                });
                run
            };
            (1..=folds).map(fold).collect()
        };
        self.runs = self.runs.into_iter().flat_map(split).collect();
        Ok(self)
    }

    /// The arms that are trained.
    pub fn trained(&self) -> impl Iterator<Item = &str> {
        self.arms.iter().map(String::as_str).filter(|arm| *arm != UNTRAINED)
    }
}

/// Settings by dotted key.
pub type Settings = BTreeMap<String, toml::Value>;

/// A study file with what the caller adds to it.
#[derive(Debug, Clone)]
pub struct StudySource<'a> {
    /// The file.
    pub file: &'a StudyFile,
    /// Where relative paths in it start.
    pub root: &'a Path,
    /// Flags of the caller, over everything the file says.
    pub last: Overlay,
}

impl StudySource<'_> {
    /// Checks what needs no arm.
    pub(super) fn check(&self) -> Result<(), StudyError> {
        if self.file.data.is_empty() {
            return Err(StudyError::Plan(
                "the study names no data set: add a section such as [data.cub] with path = \"CUB_200_2011\"".to_owned(),
            ));
        }
        Ok(())
    }

    /// The layers of an arm on a data set, without the seed.
    pub(super) fn layers(&self, data: &str, arm: &str, chosen: &Settings) -> Result<Overlay, String> {
        let mut layers = preset_of(self.file, arm)?;
        let mut base = Overlay::default();
        base.put(self.file.base.clone());
        layers.put_layers(at_root(base, self.root));
        if let Some((_, entry)) = self.file.data.iter().find(|(name, _)| name == data) {
            layers.put_layers(at_root(data_layer(entry, self.root)?, self.root));
        }
        for entry in chain(self.file, arm)?.into_iter().rev() {
            layers.put_layers(at_root(layer(entry.set.as_ref())?, self.root));
        }
        for (key, value) in chosen {
            layers.insert(key, value.clone());
        }
        layers.put_layers(self.last.clone());
        Ok(layers)
    }
}

/// The configuration of layers with a seed.
pub(super) fn resolve(mut layers: Overlay, seed: u64) -> Result<Config, String> {
    let number = i64::try_from(seed).map_err(|_| format!("seed {seed}: expected a number below 2^63"))?;
    layers.insert("seed", number);
    resolve_from_start(layers).map_err(|error| error.to_string())
}

/// What a study is made of.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The arm that differences are taken to; `None`: `proxy-anchor` if it is there, else the first.
    pub baseline: Option<String>,
    /// Whether the network before training takes part.
    pub untrained: bool,
    /// Names of the data sets.
    pub data: Vec<String>,
    /// Names of the arms.
    pub arms: Vec<String>,
    /// The network whose order inside classes is compared with.
    pub reference: Option<ReferenceConfig>,
}

/// Checks what only shows with the data: whether the sampler finds its classes, and the network takes its weights.
///
/// # Errors
/// If the run could not start.
pub(super) fn check_with_data(run: &PlannedRun, data: &PreparedData) -> Result<(), StudyError> {
    let refused = |problem: String| StudyError::Refused {
        what: on(&run.arm, &run.data),
        problem,
    };
    if (run.on_validation || run.fold.is_some()) && data.validation.is_empty() {
        return Err(refused(
            "no class is left to validate on: the data set has fewer than four training classes".to_owned(),
        ));
    }
    let sampler = run.config.sampler.init(run.config.seed);
    if run.config.train.epochs > 0 && !sampler.needs_embeddings() {
        sampler
            .validate(data.sampler_input())
            .map_err(|error| refused(error.to_string()))?;
    }
    run.config
        .transform
        .init()
        .map_err(|error| refused(error.to_string()))?;
    run.config.device.resolve().map_err(refused)?;
    Ok(())
}

pub(super) fn on(arm: &str, data: &str) -> String {
    if data.is_empty() {
        format!("arm `{arm}`")
    } else {
        format!("arm `{arm}` on data set `{data}`")
    }
}

/// An arm, then what it is like, then what that is like.
pub(super) fn chain<'a>(file: &'a StudyFile, arm: &str) -> Result<Vec<&'a ArmEntry>, String> {
    let mut all = vec![file.arm(arm)?];
    while let Some(like) = &all[all.len() - 1].like {
        if all.len() > file.arms.len() {
            return Err(format!("like = \"{like}\" leads back to the arm itself"));
        }
        all.push(file.arm(like).map_err(|problem| format!("like: {problem}"))?);
    }
    Ok(all)
}

fn preset_of(file: &StudyFile, arm: &str) -> Result<Overlay, String> {
    let of_base = file.base.get("preset").and_then(toml::Value::as_str).map(str::to_owned);
    let of_arms = chain(file, arm)?.into_iter().find_map(|entry| entry.preset.clone());
    let is_preset = presets::find(arm).is_ok().then(|| arm.to_owned());
    let name = of_arms.or(of_base).or(is_preset).ok_or_else(|| {
        let names: Vec<&str> = presets::ALL.iter().map(|preset| preset.name).collect();
        format!(
            "it says no preset: add preset = \"…\" to [arm.{arm}] or to [base], one of {}",
            names.join(", ")
        )
    })?;
    Overlay::preset(&name).map_err(|error| error.to_string())
}

fn data_layer(entry: &DataEntry, root: &Path) -> Result<Overlay, String> {
    let mut layers = Overlay::default();
    let paths = entry.path.all();
    let Some((first, with)) = paths.split_first() else {
        return Err("its section names no path: add path = \"…\"".to_owned());
    };
    let text = |path: &Path| {
        let embedded = path.as_os_str() == "flora";
        let whole = if embedded { path.to_owned() } else { root.join(path) };
        if !embedded && !whole.exists() {
            return Err(format!("its data are not there: expected them at {}", whole.display()));
        }
        whole.to_str().map(str::to_owned).ok_or_else(|| {
            format!(
                "the path {} is not valid UTF-8, which the configuration needs",
                whole.display()
            )
        })
    };
    layers.insert("data.path", text(first)?);
    if !with.is_empty() {
        let with: Vec<toml::Value> = with
            .iter()
            .map(|path| text(path).map(toml::Value::from))
            .collect::<Result<_, _>>()?;
        layers.insert("data.with", with);
    }
    if let Some(layout) = &entry.layout {
        let layout: Layout = layout.parse().map_err(|problem| format!("layout: {problem}"))?;
        layers.insert("data.layout", layout.name());
    }
    for (key, classes) in [
        ("data.train-classes", &entry.train_classes),
        ("data.test-classes", &entry.test_classes),
    ] {
        if let Some(classes) = classes {
            layers.insert(key, classes.as_str());
        }
    }
    layers.put_layers(layer(entry.set.as_ref())?);
    Ok(layers)
}

/// Lets relative paths of weights and of a teacher's vectors start at the root of the study.
fn at_root(mut layers: Overlay, root: &Path) -> Overlay {
    for key in ["model.weights", "teacher.network.weights", "teacher.vectors"] {
        let path = layers
            .get(key)
            .and_then(toml::Value::as_str)
            .map(|path| root.join(path));
        if let Some(path) = path.as_deref().and_then(Path::to_str) {
            layers.insert(key, path);
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(text: &str) -> Result<Study, String> {
        let file = StudyFile::parse(text).unwrap();
        let source = StudySource {
            file: &file,
            root: Path::new("."),
            last: Overlay::default(),
        };
        Study::of_file(&source, &BTreeMap::new()).map_err(|error| error.to_string())
    }

    const DATA: &str = "[data.plants]\npath = \"flora\"\n";

    #[test]
    fn later_layers_win() {
        let text = format!(
            "seeds = [3, 4]\n[base]\ntrain.epochs = 2\noptimizer.rate = 1e-3\n{DATA}set = [\"train.epochs=5\", \"model.width=64\"]\n\
             [arm.proxy-anchor]\n[arm.strong]\npreset = \"gradus\"\n[arm.strong.set]\nintra-class.weight = 3\n\
             [arm.stronger]\nlike = \"strong\"\nset = [\"intra-class.weight=7\", \"train.epochs=6\"]\n"
        );
        let found = study(&text).unwrap();
        assert_eq!(
            (found.baseline.as_str(), found.arms.len(), found.runs.len()),
            ("proxy-anchor", 4, 8)
        );
        let run = |arm: &str| found.runs.iter().find(|run| run.arm == arm && run.seed == 4).unwrap();
        let (base, stronger) = (run("proxy-anchor"), run("stronger"));
        assert_eq!(
            (base.config.train.epochs, base.config.seed, base.config.model.width),
            (5, 4, 64)
        );
        assert_eq!(
            (stronger.config.train.epochs, stronger.config.preset.as_str()),
            (6, "gradus")
        );
        assert!((stronger.config.intra_class.weight - 7.0).abs() < 1e-12);
        assert!((run("strong").config.intra_class.weight - 3.0).abs() < 1e-12);
        assert_eq!(run(UNTRAINED).config.train.epochs, 0);
        assert_eq!(stronger.place(), Path::new("plants/stronger-seed-4"));
    }

    #[test]
    fn mistakes_name_the_arm() {
        for (text, expected) in [
            (
                "[arm.a]\npreset = \"gradu\"",
                vec!["arm `a` on data set `plants`", "did you mean `gradus`"],
            ),
            ("[arm.a]", vec!["arm `a`", "says no preset"]),
            ("[arm.a]\nlike = \"b\"\n[arm.b]\nlike = \"a\"", vec!["leads back"]),
            (
                "[arm.gradus]\nset = [\"train.epoch=1\"]",
                vec!["arm `gradus`", "did you mean `epochs`"],
            ),
            (
                "[arm.gradus]\nset = [\"optimizer.rate=-1\"]",
                vec!["arm `gradus`", "positive"],
            ),
            ("[arm.untrained]\npreset = \"gradus\"", vec!["untrained"]),
            ("", vec!["no arm"]),
        ] {
            let message = study(&format!("{DATA}{text}")).unwrap_err();
            for part in expected {
                assert!(message.contains(part), "{text}: {message}");
            }
        }
        assert!(
            study(&format!("seeds = [1, 1]\n{DATA}[arm.gradus]"))
                .unwrap_err()
                .contains("twice")
        );
        assert!(
            study(&format!("baseline = \"gradu\"\n{DATA}[arm.gradus]"))
                .unwrap_err()
                .contains("did you mean `gradus`")
        );
        assert!(
            study("[data.a]\npath = \"nowhere\"\n[arm.gradus]")
                .unwrap_err()
                .contains("nowhere")
        );
        assert!(study("[arm.gradus]").unwrap_err().contains("no data set"));
        let seen = study(&format!("{DATA}[arm.gradus]\n[reference]\nbackbone = \"conv4\"\n")).unwrap_err();
        assert!(seen.contains("no arm saw"), "{seen}");
    }
}
