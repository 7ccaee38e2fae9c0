//! What `gradus evaluate` reads from files.

use std::path::Path;

use gradus_core::EmbeddingSet;
use gradus_core::embeddings::{LabelKind, NpyRows, read_cameras, read_item_labels, read_rows, read_table};
use gradus_core::evaluation::{FactorTable, Rows};
use gradus_core::relations::Labels;

use crate::arguments::Evaluate;
use crate::failure::Failure;

/// Rows from a file: in memory, or left where they are.
pub(super) struct Input {
    source: Source,
    pub(super) labels: Labels,
}

enum Source {
    Memory(EmbeddingSet),
    File(NpyRows),
}

impl Input {
    pub(super) fn open(
        path: &Path,
        labels: Option<&Path>,
        kind: Option<LabelKind>,
        memory: usize,
    ) -> Result<Self, Failure> {
        let labels = labels.map(|path| read_item_labels(path, kind)).transpose()?;
        let is_npy = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
        if let (true, Some(labels)) = (is_npy, &labels) {
            let rows = NpyRows::open(path)?;
            // Once as given and once at unit length.
            let needed = rows
                .len()
                .saturating_mul(rows.dim())
                .saturating_mul(2 * size_of::<f32>());
            if needed > memory / 4 * 3 {
                check_labels(path, rows.len(), labels)?;
                return Ok(Self {
                    labels: labels.clone(),
                    source: Source::File(rows),
                });
            }
        }
        let table = match labels {
            Some(_) => read_rows(path)?,
            None => read_table(path, kind)?,
        };
        let labels = labels.or(table.labels).ok_or_else(|| {
            Failure::new(format!(
                "{} says nothing of labels: give them with --labels (--gallery-labels for the gallery)",
                path.display()
            ))
        })?;
        let len = table.values.len() / table.dim.max(1);
        check_labels(path, len, &labels)?;
        let set = EmbeddingSet {
            dim: table.dim,
            values: table.values,
            labels: labels
                .classes()
                .map_or_else(|| vec![0; len], |classes| classes.to_vec()),
            ids: table
                .ids
                .unwrap_or_else(|| (0..len).map(|row| format!("row {row} of {}", path.display())).collect()),
        };
        Ok(Self {
            source: Source::Memory(set),
            labels,
        })
    }

    pub(super) fn rows(&self) -> &dyn Rows {
        match &self.source {
            Source::Memory(set) => set,
            Source::File(rows) => rows,
        }
    }
}

/// The known factors of the queries.
pub(super) fn factors(arguments: &Evaluate) -> Result<Option<FactorTable>, Failure> {
    let circular = arguments.circular.iter().map(|text| circular(text));
    let circular = circular.collect::<Result<Vec<_>, _>>()?;
    let path = arguments.factors.as_ref();
    Ok(path.map(|path| FactorTable::read(path, &circular)).transpose()?)
}

/// The cameras of queries and gallery.
pub(super) fn cameras(arguments: &Evaluate) -> Result<Option<[Vec<u32>; 2]>, Failure> {
    let Some(cameras) = &arguments.cameras else {
        return Ok(None);
    };
    let queries = read_cameras(cameras)?;
    let gallery = match (&arguments.gallery_cameras, &arguments.gallery_embeddings) {
        (Some(path), _) => read_cameras(path)?,
        (None, None) => queries.clone(),
        (None, Some(_)) => {
            return Err(Failure::new(
                "--cameras with a gallery needs --gallery-cameras as well: a match is left out where both agree",
            ));
        }
    };
    Ok(Some([queries, gallery]))
}

/// Rows whose labels do not matter.
pub(super) fn unlabelled(path: &Path) -> Result<EmbeddingSet, Failure> {
    let table = read_rows(path)?;
    let len = table.values.len() / table.dim.max(1);
    Ok(EmbeddingSet {
        dim: table.dim,
        values: table.values,
        labels: vec![0; len],
        ids: table
            .ids
            .unwrap_or_else(|| (0..len).map(|row| format!("row {row} of {}", path.display())).collect()),
    })
}

/// The rows that whitening is fitted to, beside embeddings from a file.
pub(super) fn unlabelled_training(path: &Path) -> Result<EmbeddingSet, Failure> {
    if path.as_os_str() == "-" {
        return Err(Failure::new(
            "--whitening without a file takes the training classes of a run; with --embeddings name the file of the training \
             embeddings (whitening with the statistics of what is measured would look at the test)",
        ));
    }
    unlabelled(path)
}

fn check_labels(path: &Path, rows: usize, labels: &Labels) -> Result<(), Failure> {
    if labels.len() == rows {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} holds {rows} embeddings, but there are {} labels: one label for each embedding is needed, in the same order",
        path.display(),
        labels.len()
    )))
}

fn circular(text: &str) -> Result<(String, f32), Failure> {
    text.rsplit_once(':')
        .and_then(|(name, period)| Some((name.to_owned(), period.parse().ok()?)))
        .ok_or_else(|| {
            Failure::new(format!(
                "--circular {text}: expected a factor and its period, such as angle:360"
            ))
        })
}
