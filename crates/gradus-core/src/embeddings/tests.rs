//! Round trips, files of other makers, and hostile files, for every format.

use std::fs;
use std::path::Path;

use super::*;

fn sample(len: usize, dim: usize) -> EmbeddingSet {
    EmbeddingSet {
        dim,
        values: (0..len * dim).map(|at| (at as f32 * 0.7).sin()).collect(),
        labels: (0..len as u32)
            .map(|row| if row == 1 { u32::MAX } else { row / 2 })
            .collect(),
        ids: (0..len).map(|row| format!("bird, \"{row}\"\u{e9}.jpg")).collect(),
    }
}

/// An `.npy` file of version 1.0.
pub(super) fn npy(dtype: &str, fortran: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    header.push_str(&" ".repeat(117 - header.len()));
    header.push('\n');
    let mut content = b"\x93NUMPY\x01\x00".to_vec();
    content.extend((header.len() as u16).to_le_bytes());
    content.extend(header.as_bytes());
    content.extend(bytes);
    content
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn every_format_gives_back_what_was_written() {
    let folder = folder();
    for format in Format::ALL {
        for (len, dim) in [(1, 1), (5, 3), (9001, 2)] {
            let path = folder.path().join(format!("e{len}.{}", format.extension()));
            let mut set = sample(len, dim);
            set.values[0] = f32::MIN_POSITIVE;
            let written = write(&set, &path).unwrap();
            assert!(written.iter().all(|file| file.is_file()));
            assert_eq!(written.len(), if format == Format::Parquet { 1 } else { 2 });
            assert_eq!(read(&path).unwrap(), set, "{format:?} {len}");
            let bytes = fs::read(&path).unwrap();
            write(&set, &path).unwrap();
            assert_eq!(
                bytes,
                fs::read(&path).unwrap(),
                "{format:?}: the same set must give the same bytes"
            );
        }
    }
    let leftovers = fs::read_dir(folder.path())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn unknown_extensions_are_refused_with_the_list() {
    for name in ["e.txt", "e", "e.npz"] {
        for error in [
            write(&sample(2, 2), Path::new(name)).unwrap_err(),
            read(Path::new(name)).unwrap_err(),
        ] {
            assert!(error.to_string().contains(".npy, .safetensors or .parquet"), "{error}");
        }
    }
    assert_eq!(Format::of(Path::new("x/E.NPY")).unwrap(), Format::Npy);
}

#[test]
fn a_table_of_someone_else_is_not_overwritten() {
    let folder = folder();
    let (path, table) = (folder.path().join("birds.npy"), folder.path().join("birds.csv"));
    fs::write(&table, "path,label\na.jpg,3\n").unwrap();
    let error = write(&sample(2, 2), &path).unwrap_err().to_string();
    assert!(
        error.contains("birds.csv") && error.contains("choose another name"),
        "{error}"
    );
    assert!(!path.exists());
    assert_eq!(fs::read_to_string(&table).unwrap(), "path,label\na.jpg,3\n");
}

#[test]
fn sets_that_cannot_be_stored_are_refused() {
    let folder = folder();
    let path = folder.path().join("e.parquet");
    let mut lying = sample(3, 2);
    lying.values.pop();
    for set in [EmbeddingSet::default(), lying] {
        assert!(matches!(write(&set, &path), Err(EmbeddingFileError::Unwritable { .. })));
    }
    assert!(matches!(
        write(&sample(2, 2), &folder.path().join("no/such/e.npy")),
        Err(EmbeddingFileError::Write { .. })
    ));
}

#[test]
fn the_table_must_belong_to_the_values() {
    let folder = folder();
    let path = folder.path().join("e.npy");
    write(&sample(3, 2), &path).unwrap();
    let table = companion_path(&path);
    let good = fs::read_to_string(&table).unwrap();
    for (bad, word) in [
        (
            good.lines().take(3).map(|line| format!("{line}\n")).collect::<String>(),
            "describes 2 rows",
        ),
        (good.replace("row,path", "path,row"), "columns row,path,label"),
        (good.replace("\n2,", "\n7,"), "expected row 2, found 7"),
        (good.replace(&u32::MAX.to_string(), "-1"), "found \"-1\""),
        (good.replace("\n2,", "\n2,x,"), "line"),
    ] {
        fs::write(&table, bad).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    fs::remove_file(&table).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("not found"));
}

#[test]
fn npy_of_other_types_and_orders_is_read() {
    let folder = folder();
    let path = folder.path().join("e.npy");
    let expected = EmbeddingSet {
        dim: 2,
        values: vec![1.0, -2.0, 0.5, 3.0, 0.0, 8.0],
        ..sample(3, 2)
    };
    write(&expected, &path).unwrap();
    let fortran = [1.0, 0.5, 0.0, -2.0, 3.0, 8.0_f32];
    let halves = [0x3c00_u16, 0xc000, 0x3800, 0x4200, 0x0000, 0x4800];
    for (dtype, order, bytes) in [
        (
            "<f8",
            "False",
            expected
                .values
                .iter()
                .flat_map(|&value| f64::from(value).to_le_bytes())
                .collect::<Vec<u8>>(),
        ),
        (
            ">f4",
            "False",
            expected.values.iter().flat_map(|value| value.to_be_bytes()).collect(),
        ),
        (
            ">f8",
            "True",
            fortran
                .iter()
                .flat_map(|&value| f64::from(value).to_be_bytes())
                .collect(),
        ),
        (
            "<f4",
            "True",
            fortran.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ),
        (
            "<f2",
            "False",
            halves.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ),
    ] {
        fs::write(&path, npy(dtype, order, "(3, 2)", &bytes)).unwrap();
        assert_eq!(read(&path).unwrap(), expected, "{dtype} {order}");
    }
}

#[test]
fn npy_headers_that_lie_are_refused_before_anything_is_allocated() {
    let folder = folder();
    let path = folder.path().join("e.npy");
    write(&sample(3, 2), &path).unwrap();
    let good = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&good).into_owned();
    assert!(text.contains("(3, 2, )"), "{text}");
    let replace = |from: &str, to: &str| {
        let at = good
            .windows(from.len())
            .position(|window| window == from.as_bytes())
            .unwrap();
        let mut bad = good.clone();
        bad.splice(at..at + from.len(), to.bytes());
        // The header keeps its length: padding gives way.
        if to.len() > from.len() {
            let spaces = bad.iter().position(|&byte| byte == b'\n').unwrap() - (to.len() - from.len());
            bad.drain(spaces..spaces + to.len() - from.len());
        }
        bad
    };
    let mut long_header = good.clone();
    long_header[6] = 2;
    long_header[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    for (bad, word) in [
        (replace("(3, 2, )", "(9, 2, )"), "promises 9 x 2"),
        (replace("(3, 2, )", "(4294967296, 4294967296)"), "promises"),
        (replace("(3, 2, )", "(3,6,2,)"), "matrix"),
        (replace("<f4", "<i4"), "floating-point"),
        (long_header, "header claims"),
        (b"PK\x03\x04 not numpy at all".to_vec(), "signature"),
        (Vec::new(), "too short"),
    ] {
        fs::write(&path, bad).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn truncated_and_damaged_files_are_errors_and_never_panics_or_wrong_sizes() {
    let folder = folder();
    // The reader's own panics are caught; their messages would only hide those of a real failure.
    let set = sample(7, 3);
    for format in Format::ALL {
        let path = folder.path().join(format!("e.{}", format.extension()));
        write(&set, &path).unwrap();
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(read(&path).is_err(), "{format:?} cut to {length} of {}", good.len());
        }
        for at in 0..good.len() {
            for flip in [0xff, 0x01, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                fs::write(&path, &bad).unwrap();
                if let Ok(found) = read(&path) {
                    assert_eq!(
                        (found.values.len(), found.ids.len()),
                        (found.len() * found.dim, found.len()),
                        "{format:?} byte {at}"
                    );
                }
            }
        }
    }
}

#[test]
fn safetensors_of_other_content_say_what_is_there() {
    use ::safetensors::tensor::{Dtype, TensorView};
    let folder = folder();
    let path = folder.path().join("e.safetensors");
    let bytes = [0_u8; 48];
    let view = |dtype, shape: &[usize], size: usize| TensorView::new(dtype, shape.to_vec(), &bytes[..size]).unwrap();
    let negative = [0xff_u8; 16];
    for (tensors, word) in [
        (vec![("weight", view(Dtype::F32, &[2, 2], 16))], "found weight"),
        (
            vec![
                ("embeddings", view(Dtype::F32, &[2, 2], 16)),
                ("labels", view(Dtype::F32, &[2], 8)),
            ],
            "labels as I64",
        ),
        (
            vec![
                ("embeddings", view(Dtype::F32, &[2, 2], 16)),
                ("labels", view(Dtype::I64, &[3], 24)),
            ],
            "3 labels",
        ),
        (
            vec![
                ("embeddings", view(Dtype::F32, &[4], 16)),
                ("labels", view(Dtype::I64, &[4], 32)),
            ],
            "shapes",
        ),
        (
            vec![
                ("embeddings", view(Dtype::F32, &[2, 2], 16)),
                ("labels", TensorView::new(Dtype::I64, vec![2], &negative).unwrap()),
            ],
            "label of row 0 is -1",
        ),
    ] {
        fs::write(&path, ::safetensors::serialize(tensors, None).unwrap()).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    write(&sample(2, 2), &path).unwrap();
    fs::remove_file(companion_path(&path)).unwrap();
    assert_eq!(read(&path).unwrap().ids, ["0", "1"]);
}
