//! CSV manifests: a header and one image per row (`path,label`; the columns of OML too; `factors.csv` of flora).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::assemble::{ClassNames, Record, assemble};
use super::scan::{self, malformed};
use super::{Layout, LayoutReader};
use crate::data::dataset::{DataError, Dataset, Factor, Part, Source};

pub(super) struct Csv;

const PATH: &[&str] = &[
    "path",
    "image_path",
    "image",
    "file",
    "filename",
    "file_name",
    "fname",
    "image_name",
];
const NAME: &[&str] = &["class_name", "label_name", "label", "class", "species", "target"];
const NUMBER: &[&str] = &["class_id", "label_id", "class_number"];
const COARSE: &[&str] = &["category", "coarse", "super_class", "superclass"];
const FACTORS: &str = "factors.csv";
/// Manifests of these names are taken first when a folder holds several.
const PREFERRED: [&str; 4] = [FACTORS, "manifest.csv", "labels.csv", "dataset.csv"];

/// The period of a factor in degrees that states none.
const FULL_TURN: f32 = 360.0;

impl LayoutReader for Csv {
    fn layout(&self) -> Layout {
        Layout::Csv
    }

    fn describe(&self) -> &'static str {
        "a CSV manifest with a header: path, label; optional split, is_query, is_gallery, category, factor.<name>"
    }

    fn generality(&self) -> u8 {
        1
    }

    fn recognise(&self, path: &Path) -> bool {
        if path.is_file() {
            is_csv(path)
        } else {
            manifests(path).is_ok_and(|found| !found.is_empty())
        }
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        if path.is_file() {
            return read_manifest(path, Vec::new());
        }
        let found = manifests(path)?;
        let preferred = PREFERRED
            .iter()
            .find_map(|name| found.iter().find(|path| path.ends_with(name)));
        match (preferred, found.as_slice()) {
            (_, [manifest]) => read_manifest(manifest, Vec::new()),
            (Some(manifest), several) => {
                let note = format!("Of {} manifests {} was read.", several.len(), manifest.display());
                read_manifest(manifest, vec![note])
            }
            (None, []) => Err(malformed(
                path,
                "no manifest was found: a .csv file was expected whose first line names the columns, among them path and \
                 label",
            )),
            (None, several) => {
                let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
                Err(malformed(
                    path,
                    format!("more than one manifest ({}); give the one to read", names.join(", ")),
                ))
            }
        }
    }
}

fn is_csv(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// CSV files of a folder whose header has a path and a class.
fn manifests(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files = scan::entries(folder)?
        .into_iter()
        .filter(|entry| !entry.is_folder && is_csv(&entry.path));
    Ok(files.map(|entry| entry.path).filter(|path| has_columns(path)).collect())
}

fn has_columns(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut first = Vec::new();
    // A first line longer than this is no header.
    if BufReader::new(file)
        .take(1 << 16)
        .read_until(b'\n', &mut first)
        .is_err()
    {
        return false;
    }
    let first = String::from_utf8_lossy(&first);
    let first = first.strip_prefix('\u{feff}').unwrap_or(&first);
    let delimiter = char::from(delimiter(first));
    let columns: Vec<String> = first
        .split(delimiter)
        .map(|cell| plain(cell.trim().trim_matches('"')))
        .collect();
    let has = |names: &[&str]| column(&columns, names).is_some();
    has(PATH) && (has(NAME) || has(NUMBER))
}

/// The separator the header has most of.
fn delimiter(header: &str) -> u8 {
    let count = |wanted: u8| header.bytes().filter(|byte| *byte == wanted).count();
    [b',', b';', b'\t']
        .into_iter()
        .rev()
        .max_by_key(|wanted| count(*wanted))
        .unwrap_or(b',')
}

/// A header cell as columns are compared: lower case, blanks and hyphens as underscores.
fn plain(cell: &str) -> String {
    cell.trim().to_ascii_lowercase().replace([' ', '-'], "_")
}

/// The first of several names that is a column.
fn column(columns: &[String], names: &[&str]) -> Option<usize> {
    names
        .iter()
        .find_map(|name| columns.iter().position(|column| column == name))
}

/// One row, checked; the class is still text.
struct Row {
    line: u64,
    path: String,
    class: String,
    number: Option<String>,
    coarse: Option<String>,
    part: Part,
}

/// A column that may become a factor.
struct FactorColumn {
    column: usize,
    factor: Factor,
    /// Named `factor.…`, so anything but a number is an error.
    certain: bool,
    /// The period was not written but taken from the unit in the name.
    assumed: bool,
    values: Vec<f32>,
    /// The first cell that is no number: its line and content.
    wrong: Option<(u64, String)>,
}

fn read_manifest(path: &Path, mut notes: Vec<String>) -> Result<Dataset, DataError> {
    let content = scan::text(path, "the CSV manifest")?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter(content.lines().next().unwrap_or_default()))
        .trim(csv::Trim::All)
        .from_reader(content.as_bytes());
    let header = reader.headers().map_err(|error| row_error(path, &error))?.clone();
    let columns: Vec<String> = header.iter().map(plain).collect();
    if let Some(twice) = (1..columns.len()).find(|place| columns[..*place].contains(&columns[*place])) {
        return Err(malformed(
            path,
            format!("line 1: the column `{}` is there twice", columns[twice]),
        ));
    }
    let path_column = column(&columns, PATH);
    let name_column = column(&columns, NAME);
    let number_column = column(&columns, NUMBER);
    let (Some(path_column), Some(class_column)) = (path_column, name_column.or(number_column)) else {
        return Err(malformed(
            path,
            format!(
                "line 1: the columns `path` and `label` were expected in the header, `{}` found",
                header.iter().collect::<Vec<_>>().join(",")
            ),
        ));
    };
    let coarse_column = column(&columns, COARSE);
    let split_column = column(&columns, &["split", "part", "subset"]);
    let query_column = column(&columns, &["is_query"]);
    let gallery_column = column(&columns, &["is_gallery"]);
    let taken: BTreeSet<usize> = [
        Some(path_column),
        name_column,
        number_column,
        coarse_column,
        split_column,
        query_column,
        gallery_column,
    ]
    .into_iter()
    .flatten()
    .collect();
    let every = path.ends_with(FACTORS);
    let mut factors = factor_columns(path, &header, &taken, every)?;

    let mut rows: Vec<Row> = Vec::new();
    let mut seen: HashMap<String, u64> = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(|error| row_error(path, &error))?;
        let line = record.position().map_or(0, |position| line_of(&content, position));
        let cell = |column: usize| record.get(column).unwrap_or_default();
        let optional = |column: Option<usize>| column.map(cell).filter(|cell| !cell.is_empty());
        let (image, class) = (cell(path_column), cell(class_column));
        if image.is_empty() || class.is_empty() {
            return Err(malformed(path, format!("line {line}: the path or the class is empty")));
        }
        if let Some(first) = seen.insert(image.to_owned(), line) {
            return Err(malformed(
                path,
                format!("line {line}: `{image}` was already listed in line {first}"),
            ));
        }
        let part = part(optional(split_column), optional(query_column), optional(gallery_column))
            .map_err(|problem| malformed(path, format!("line {line}: {problem}")))?;
        for factor in &mut factors {
            let text = cell(factor.column);
            match text.parse::<f32>().ok().filter(|value| value.is_finite()) {
                Some(value) => factor.values.push(value),
                None => {
                    factor.wrong.get_or_insert_with(|| (line, text.to_owned()));
                }
            }
        }
        rows.push(Row {
            line,
            path: image.to_owned(),
            class: class.to_owned(),
            number: number_column.map(|column| cell(column).to_owned()),
            coarse: optional(coarse_column).map(str::to_owned),
            part,
        });
    }
    if rows.is_empty() {
        return Err(malformed(
            path,
            "the manifest has a header and no rows; one row per image was expected",
        ));
    }
    check_parts(path, &rows)?;
    let factors = settle(path, factors, rows.len(), &mut notes)?;
    let (numbers, names) = number_classes(path, &rows)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let records = rows
        .iter()
        .enumerate()
        .map(|(place, row)| Record {
            source: Source::File(folder.join(&row.path)),
            number: numbers[row.class.as_str()],
            part: row.part,
            factors: factors.iter().map(|factor| factor.values[place]).collect(),
        })
        .collect();
    let factors = factors.into_iter().map(|factor| factor.factor).collect();
    let mut dataset = assemble(Layout::Csv, folder, records, &names, factors, notes);
    dataset.root = path.to_owned();
    Ok(dataset)
}

/// The line a record is on; the reader's position is before the blank lines that it skips.
fn line_of(content: &str, position: &csv::Position) -> u64 {
    let rest = content.as_bytes().get(position.byte() as usize..).unwrap_or_default();
    let blank = rest.iter().take_while(|byte| **byte == b'\r' || **byte == b'\n');
    position.line() + blank.filter(|byte| **byte == b'\n').count() as u64
}

fn row_error(path: &Path, error: &csv::Error) -> DataError {
    let line = error
        .position()
        .map(|position| format!("line {}: ", position.line()))
        .unwrap_or_default();
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{expected_len} columns were expected as in the header, {len} found (quote cells that hold commas)")
        }
        _ => format!("not a readable CSV row ({error})"),
    };
    malformed(path, format!("{line}{problem}"))
}

/// Columns named `factor.<name>`, and in `factors.csv` every column without another meaning.
fn factor_columns(
    path: &Path,
    header: &csv::StringRecord,
    taken: &BTreeSet<usize>,
    every: bool,
) -> Result<Vec<FactorColumn>, DataError> {
    let mut found = Vec::new();
    for (column, cell) in header.iter().enumerate() {
        let named = cell.strip_prefix("factor.");
        if taken.contains(&column) || (named.is_none() && !every) {
            continue;
        }
        let name = named.unwrap_or(cell);
        let (name, written) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((name, period)) => match period.trim().parse::<f32>().ok().filter(|p| p.is_finite() && *p > 0.0) {
                Some(period) => (name.trim(), Some(period)),
                None => {
                    let problem = format!(
                        "line 1: `{cell}` should be `name[period]` with a positive number, for example `rotation_deg[360]`"
                    );
                    return Err(malformed(path, problem));
                }
            },
            None => (name, None),
        };
        if name.is_empty() {
            return Err(malformed(
                path,
                format!("line 1: column {} is a factor without a name", column + 1),
            ));
        }
        let assumed = written.is_none() && name.ends_with("_deg");
        found.push(FactorColumn {
            column,
            factor: Factor {
                name: name.to_owned(),
                period: if assumed { Some(FULL_TURN) } else { written },
            },
            certain: named.is_some(),
            assumed,
            values: Vec::new(),
            wrong: None,
        });
    }
    Ok(found)
}

/// Keeps the factor columns that are numbers throughout; text columns are noted, mixed ones are errors.
fn settle(
    path: &Path,
    factors: Vec<FactorColumn>,
    rows: usize,
    notes: &mut Vec<String>,
) -> Result<Vec<FactorColumn>, DataError> {
    let mut kept = Vec::new();
    for mut factor in factors {
        match &factor.wrong {
            None => {
                debug_assert_eq!(factor.values.len(), rows);
                if factor.assumed && spread(&factor.values) <= FULL_TURN / 2.0 {
                    // No pair is nearer the other way round: an angle from a range (a tilt), whose ends are the farthest there is.
                    factor.factor.period = None;
                }
                kept.push(factor);
            }
            Some((line, text)) if factor.certain || !factor.values.is_empty() => {
                let name = &factor.factor.name;
                let problem = format!("line {line}: the factor `{name}` should be a finite number, `{text}` found");
                return Err(malformed(path, problem));
            }
            Some(_) => notes.push(format!(
                "The column `{}` holds no numbers and is no factor.",
                factor.factor.name
            )),
        }
    }
    Ok(kept)
}

/// From the smallest value to the largest one.
fn spread(values: &[f32]) -> f32 {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    largest - values.iter().copied().fold(f32::INFINITY, f32::min)
}

/// The part of a row from the columns split, is_query and is_gallery.
fn part(split: Option<&str>, query: Option<&str>, gallery: Option<&str>) -> Result<Part, String> {
    let truth = |cell: Option<&str>, column: &str| match cell.map(str::to_ascii_lowercase).as_deref() {
        None | Some("nan" | "none") => Ok(None),
        Some("true" | "1" | "1.0" | "yes") => Ok(Some(true)),
        Some("false" | "0" | "0.0" | "no") => Ok(Some(false)),
        Some(other) => Err(format!("{column} should be true or false, `{other}` found")),
    };
    let (query, gallery) = (truth(query, "is_query")?, truth(gallery, "is_gallery")?);
    let evaluated = match (query, gallery) {
        (None, None) => None,
        (Some(true), Some(true)) => Some(Part::Test),
        (Some(true), _) => Some(Part::Query),
        (_, Some(true)) => Some(Part::Gallery),
        _ => None,
    };
    match split.map(str::to_ascii_lowercase).as_deref() {
        Some("train" | "training") if evaluated.is_none() => Ok(Part::Train),
        Some("train" | "training") => Err("a training image cannot be query or gallery".to_owned()),
        Some("test" | "testing" | "val" | "valid" | "validation") if query.is_some() || gallery.is_some() => {
            evaluated.ok_or_else(|| "a test image should be query, gallery or both".to_owned())
        }
        Some("test" | "testing" | "val" | "valid" | "validation") => Ok(Part::Test),
        Some("query") => Ok(Part::Query),
        Some("gallery") => Ok(Part::Gallery),
        Some(other) => Err(format!(
            "split should be train, test, query or gallery, `{other}` found"
        )),
        None => Ok(evaluated.unwrap_or(Part::Unassigned)),
    }
}

/// Either no row has a part or all have; test images and separate queries do not go together.
fn check_parts(path: &Path, rows: &[Row]) -> Result<(), DataError> {
    let first = |wanted: fn(Part) -> bool| rows.iter().find(|row| wanted(row.part)).map(|row| row.line);
    let unassigned = first(|part| part == Part::Unassigned);
    if let (Some(line), Some(other)) = (unassigned, first(|part| part != Part::Unassigned)) {
        let problem =
            format!("line {line}: no split is given, although line {other} gives one; fill it in for all or none");
        return Err(malformed(path, problem));
    }
    let apart = first(|part| matches!(part, Part::Query | Part::Gallery));
    if let (Some(line), Some(other)) = (first(|part| part == Part::Test), apart) {
        let problem = format!(
            "line {line} is query and gallery at once, while line {other} is only one of them; make every test image both, \
             or keep queries and gallery apart"
        );
        return Err(malformed(path, problem));
    }
    Ok(())
}

/// Numbers of the classes by name: the labels themselves if they are whole numbers, else class_id, else 1, 2, … by name.
fn number_classes<'a>(path: &Path, rows: &'a [Row]) -> Result<(BTreeMap<&'a str, u32>, ClassNames), DataError> {
    let mut first: BTreeMap<&str, &Row> = BTreeMap::new();
    for row in rows {
        let known = first.entry(&row.class).or_insert(row);
        if known.number != row.number || known.coarse != row.coarse {
            let problem = format!(
                "line {}: class `{}` has another class number or category here than in line {}",
                row.line, row.class, known.line
            );
            return Err(malformed(path, problem));
        }
    }
    let whole = |text: &str| text.parse::<u32>().ok();
    let given: Option<Vec<u32>> = first
        .iter()
        .map(|(name, row)| row.number.as_deref().map_or_else(|| whole(name), whole))
        .collect::<Option<Vec<u32>>>();
    let stated = rows[0].number.is_some();
    let numbers: BTreeMap<&str, u32> = match given {
        Some(given) => first.keys().copied().zip(given).collect(),
        None => first.keys().copied().zip(1..).collect(),
    };
    let mut names = ClassNames::new();
    for (name, number) in &numbers {
        if let Some((other, _)) = names.insert(*number, ((*name).to_owned(), first[name].coarse.clone())) {
            let what = if stated { "class number" } else { "label" };
            let problem = format!(
                "line {}: the {what} {number} belongs to both `{other}` and `{name}`",
                first[name].line
            );
            return Err(malformed(path, problem));
        }
    }
    Ok((numbers, names))
}
