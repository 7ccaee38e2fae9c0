//! Layouts on small generated trees, on damaged lists, and on the real data where it is there.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::mat::tests::Writer;
use super::{Layout, read, read_several};
use crate::data::dataset::{Dataset, Part, Source};
use crate::data::inspect::{Inspection, inspect};
use crate::data::split::{SplitOptions, TestSet};

/// The shared real data, or `None` with a printed reason.
pub(in crate::data) fn shared(inside: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRADUS_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let path = root.join("data").join(inside);
    if path.exists() {
        return Some(path);
    }
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: {} is not there (set GRADUS_SHARED)", path.display());
    }
    None
}

/// A folder with files; a content of one `*` stands for an image (never decoded here).
pub(in crate::data) fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write(folder.path(), name, content.as_bytes());
    }
    folder
}

fn write(root: &Path, name: &str, content: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn refused(path: &Path, words: &[&str]) {
    let error = read(path, None).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

fn names(dataset: &Dataset) -> Vec<(&str, u32)> {
    dataset
        .classes
        .iter()
        .map(|class| (class.name.as_str(), class.number))
        .collect()
}

fn files(dataset: &Dataset) -> Vec<String> {
    let relative = |path: &PathBuf| path.strip_prefix(&dataset.root).unwrap_or(path).display().to_string();
    let one = |source: &Source| match source {
        Source::File(path) => relative(path),
        other => other.name(),
    };
    dataset.items.iter().map(|item| one(&item.source)).collect()
}

#[test]
fn names_of_layouts_parse_and_describe() {
    let all = Layout::all();
    assert!(all.windows(2).all(|pair| pair[0].0.name() < pair[1].0.name()));
    assert_eq!(all.len(), 10);
    for (layout, words) in all {
        assert_eq!(layout.name().parse::<Layout>().unwrap(), layout);
        assert_eq!(serde_json::to_value(layout).unwrap(), layout.name());
        assert!(words.len() > 20 && !words.contains('\n'));
    }
    assert_eq!("InShop".parse::<Layout>().unwrap(), Layout::InShop);
    let error = "omniglott".parse::<Layout>().unwrap_err().to_string();
    assert!(
        error.contains("did you mean `omniglot`") && error.contains("image-folder"),
        "{error}"
    );
    assert!(
        !"zzzzzzzz"
            .parse::<Layout>()
            .unwrap_err()
            .to_string()
            .contains("did you mean")
    );
}

#[test]
fn missing_empty_and_strange_paths_say_what_to_do() {
    refused(
        Path::new("/no/such/place"),
        &["/no/such/place", "not found", "spelling"],
    );
    let empty = tree(&[]);
    refused(
        empty.path(),
        &[
            "the folder is empty",
            "one sub-folder per class",
            empty.path().to_str().unwrap(),
        ],
    );
    refused(
        tree(&[("a.jpg", "*"), ("b.jpg", "*")]).path(),
        &["2 images lie directly", "no class"],
    );
    refused(
        tree(&[("notes.txt", "x"), ("sub/readme.md", "x")]).path(),
        &["no known layout", "notes.txt, sub"],
    );
    let single = tree(&[("a.txt", "x")]);
    refused(
        &single.path().join("a.txt"),
        &["neither a .csv manifest nor an archive"],
    );
    let error = read(empty.path(), Some(Layout::Cub)).unwrap_err().to_string();
    assert!(error.contains("images.txt") && error.contains("not found"), "{error}");
    for (layout, _) in Layout::all() {
        assert!(
            read(empty.path(), Some(layout)).is_err(),
            "{layout} reads an empty folder"
        );
    }
}

#[test]
fn image_folder_is_sorted_and_skips_what_is_no_image() {
    let folder = tree(&[
        ("b/2.JPG", "*"),
        ("b/10.png", "*"),
        ("b/._2.JPG", "x"),
        ("b/.hidden.png", "x"),
        ("b/Thumbs.db", "x"),
        ("a/deep/er/1.webp", "*"),
        (".git/x.png", "x"),
        ("readme.txt", "x"),
    ]);
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!(dataset.layout, Layout::ImageFolder);
    assert_eq!(names(&dataset), [("a", 1), ("b", 2)]);
    assert_eq!(files(&dataset), ["a/deep/er/1.webp", "b/10.png", "b/2.JPG"]);
    assert!(dataset.items.iter().all(|item| item.part == Part::Unassigned));
    assert_eq!(dataset.notes, ["1 files that are no images were skipped."]);

    refused(
        tree(&[("a/1.png", "*"), ("b/x.txt", "x")]).path(),
        &["/b", "holds no image", "remove the folder"],
    );
}

#[test]
fn image_folder_keeps_official_numbers() {
    let folder = tree(&[
        ("images/101.Z/1.jpg", "*"),
        ("images/20.Y/1.jpg", "*"),
        ("images/3_X/1.jpg", "*"),
    ]);
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!(names(&dataset), [("3_X", 3), ("20.Y", 20), ("101.Z", 101)]);
    // One name without a number, or a number twice: counted instead.
    let folder = tree(&[("1.a/1.jpg", "*"), ("1.b/1.jpg", "*"), ("2.c/1.jpg", "*")]);
    assert_eq!(
        names(&read(folder.path(), None).unwrap()),
        [("1.a", 1), ("1.b", 2), ("2.c", 3)]
    );
}

#[test]
fn train_and_test_folders_are_parts() {
    let folder = tree(&[
        ("train/a/1.jpg", "*"),
        ("train/b/1.jpg", "*"),
        ("val/c/1.jpg", "*"),
        ("val/d/1.jpg", "*"),
    ]);
    let dataset = read(folder.path(), None).unwrap();
    let split = dataset.split(&SplitOptions::default()).unwrap();
    assert_eq!((split.train, split.test), (vec![0, 1], TestSet::Single(vec![2, 3])));

    // The same classes on both sides are not the zero-shot protocol.
    let both: Vec<(String, String)> = ["train", "test"]
        .iter()
        .flat_map(|part| {
            "abcd"
                .chars()
                .map(move |class| (format!("{part}/{class}/1.jpg"), "*".to_owned()))
        })
        .collect();
    let both: Vec<(&str, &str)> = both
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_str()))
        .collect();
    let folder = tree(&both);
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!((dataset.items.len(), dataset.classes.len()), (8, 4));
    let split = dataset.split(&SplitOptions::default()).unwrap();
    assert!(split.description.contains("4 common classes"), "{}", split.description);
    assert_eq!((split.train_classes, split.train.len(), split.test.len()), (2, 4, 4));

    let folder = tree(&[
        ("train/a/1.jpg", "*"),
        ("train/b/1.jpg", "*"),
        ("query/c/1.jpg", "*"),
        ("gallery/c/2.jpg", "*"),
        ("gallery/d/1.jpg", "*"),
    ]);
    let split = read(folder.path(), None)
        .unwrap()
        .split(&SplitOptions::default())
        .unwrap();
    let TestSet::QueryGallery { query, gallery } = split.test else {
        panic!("not apart")
    };
    assert_eq!((query.len(), gallery.len()), (1, 2));
    // Two classes that happen to be called like parts.
    let folder = tree(&[("train/1.jpg", "*"), ("test/1.jpg", "*")]);
    assert_eq!(names(&read(folder.path(), None).unwrap()), [("test", 1), ("train", 2)]);
}

#[cfg(unix)]
#[test]
fn links_that_loop_are_not_followed() {
    let folder = tree(&[("a/1.jpg", "*"), ("b/1.jpg", "*")]);
    std::os::unix::fs::symlink(folder.path().join("a"), folder.path().join("a/again")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("b/self"), folder.path().join("b/self")).unwrap();
    std::os::unix::fs::symlink("/no/such/file.jpg", folder.path().join("b/dead.jpg")).unwrap();
    assert_eq!(files(&read(folder.path(), None).unwrap()), ["a/1.jpg", "b/1.jpg"]);
}

#[test]
fn csv_understands_names_numbers_and_separators() {
    let folder = tree(&[(
        "list.csv",
        "\u{feff}Image;Class Name;class_id\nx/1.jpg;Ford, old;7\nx/2.jpg;\"BMW; new\";3\n",
    )]);
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!(dataset.layout, Layout::Csv);
    assert_eq!(names(&dataset), [("BMW; new", 3), ("Ford, old", 7)]);
    assert_eq!(dataset.items[0].class, 1);
    assert_eq!(
        dataset.items[0].source.name(),
        folder.path().join("x/1.jpg").display().to_string()
    );
    // The file itself; whole labels are the numbers.
    let folder = tree(&[
        ("list.csv", "path,label\na.jpg,10\nb.jpg,9\n"),
        ("other.csv", "x,y\n1,2\n"),
    ]);
    assert_eq!(
        names(&read(&folder.path().join("list.csv"), None).unwrap()),
        [("9", 9), ("10", 10)]
    );
    assert_eq!(read(folder.path(), None).unwrap().items.len(), 2);
}

#[test]
fn csv_of_open_metric_learning() {
    let folder = tree(&[(
        "df.csv",
        "label,path,split,is_query,is_gallery,category\n1,a.jpg,train,,,car\n2,b.jpg,train,,,car\n\
         3,c.jpg,validation,True,False,bike\n3,d.jpg,validation,False,True,bike\n4,e.jpg,validation,True,False,bike\n\
         4,f.jpg,validation,False,True,bike\n",
    )]);
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!(dataset.classes[2].coarse.as_deref(), Some("bike"));
    let split = dataset.split(&SplitOptions::default()).unwrap();
    assert_eq!(
        split.test,
        TestSet::QueryGallery {
            query: vec![2, 4],
            gallery: vec![3, 5]
        }
    );
}

#[test]
fn csv_errors_name_the_line() {
    let cases: [(&str, &[&str]); 12] = [
        ("path,label\na.jpg,1\nb.jpg\n", &["line 3", "2 columns", "1 found"]),
        (
            "path,label\na.jpg,1\n\na.jpg,2\n",
            &["line 4", "already listed in line 2"],
        ),
        ("path,label\na.jpg,\n", &["line 2", "empty"]),
        ("path,label\n", &["no rows"]),
        ("name,colour\na,b\n", &["line 1", "`path` and `label`", "name,colour"]),
        ("path,label,path\na,b,c\n", &["line 1", "twice"]),
        ("path,label,split\na,1,train\nb,2,tset\n", &["line 3", "tset"]),
        ("path,label,split\na,1,train\nb,2,\n", &["line 3", "line 2"]),
        (
            "path,label,split,is_query,is_gallery\na,1,test,1,1\nb,2,test,1,0\n",
            &["line 2", "line 3"],
        ),
        (
            "path,label,class_id\na,x,1\nb,y,1\n",
            &["class number 1", "`x` and `y`"],
        ),
        ("path,label,class_id\na,x,1\nb,x,2\n", &["line 3", "line 2"]),
        ("path,label,factor.turn\na,x,1\nb,y,nan\n", &["line 3", "turn", "nan"]),
    ];
    for (content, words) in cases {
        let folder = tree(&[("list.csv", content)]);
        refused(&folder.path().join("list.csv"), words);
    }
    let folder = tree(&[]);
    write(folder.path(), "list.csv", b"path,label\na.jpg,1\nb\xff.jpg,2\n");
    refused(folder.path(), &["line 3", "UTF-8", "list.csv"]);
    let folder = tree(&[("a.csv", "path,label\nx,1\n"), ("b.csv", "path,label\nx,1\n")]);
    refused(folder.path(), &["more than one manifest", "a.csv", "b.csv"]);
}

#[test]
fn factors_of_a_generated_folder() {
    let folder = tree(&[
        (
            "factors.csv",
            "path,class,rotation_deg,petal_deg[60],growth,background,tilt_deg,turn_deg[360]\n\
             a/1.png,a,350,12.5,0.25,sky,0,0\nb/1.png,b,10,3,0.5,soil,70,70\n",
        ),
        ("a/1.png", "*"),
        ("b/1.png", "*"),
    ]);
    let dataset = read(folder.path(), None).unwrap();
    let factors: Vec<(&str, Option<f32>)> = dataset
        .factors
        .iter()
        .map(|factor| (factor.name.as_str(), factor.period))
        .collect();
    assert_eq!(
        factors,
        [
            ("rotation_deg", Some(360.0)),
            ("petal_deg", Some(60.0)),
            ("growth", None),
            // Within half a turn nothing closes, unless the header says so.
            ("tilt_deg", None),
            ("turn_deg", Some(360.0)),
        ]
    );
    assert_eq!(dataset.items[0].factors, [350.0, 12.5, 0.25, 0.0, 0.0]);
    assert!(dataset.notes[0].contains("`background`"), "{:?}", dataset.notes);
    assert_eq!(inspect(&dataset, None).images_present, 2);
    let flora = read(folder.path(), Some(Layout::Flora)).unwrap();
    assert_eq!(flora.factors, dataset.factors);
    // Half a column of numbers is a mistake.
    let folder = tree(&[("factors.csv", "path,class,turn\na,a,1\nb,b,x\n")]);
    refused(folder.path(), &["line 3", "`turn`", "`x`"]);
    let folder = tree(&[("factors.csv", "path,class,turn[-1]\na,a,1\nb,b,1\n")]);
    refused(folder.path(), &["line 1", "positive"]);
}

fn cub(images: &str, labels: &str, classes: &str) -> TempDir {
    tree(&[
        ("CUB_200_2011/images.txt", images),
        ("CUB_200_2011/image_class_labels.txt", labels),
        ("CUB_200_2011/classes.txt", classes),
    ])
}

#[test]
fn cub_joins_its_lists() {
    let folder = cub(
        "1 001.A/x.jpg\r\n7 009.B/y.jpg\r\n3 009.B/z z.jpg\r\n",
        "3 9\n7 9\n1 1\n",
        "1 001.A\n2 002.N\n9 009.B\n",
    );
    for path in [folder.path().to_owned(), folder.path().join("CUB_200_2011")] {
        let dataset = read(&path, None).unwrap();
        assert_eq!(dataset.layout, Layout::Cub);
        assert_eq!(names(&dataset), [("001.A", 1), ("009.B", 9)]);
        assert_eq!(
            files(&dataset),
            ["images/001.A/x.jpg", "images/009.B/y.jpg", "images/009.B/z z.jpg"]
        );
        assert_eq!(
            dataset.items.iter().map(|item| item.class).collect::<Vec<_>>(),
            [0, 1, 1]
        );
        assert!(
            dataset.notes[0].contains("a subset of CUB-200-2011 (2 of its 200 classes)"),
            "{:?}",
            dataset.notes
        );
    }
    let refuse = |images: &str, labels: &str, words: &[&str]| refused(cub(images, labels, "1 A\n2 B\n").path(), words);
    refuse("1 A/x.jpg\n1 A/y.jpg\n", "1 1\n", &["images.txt", "line 2", "line 1"]);
    refuse(
        "1 A/x.jpg\n2 A/y.jpg\n",
        "1 1\n",
        &["line 2", "no line in image_class_labels.txt"],
    );
    refuse("1 A/x.jpg\n", "1 1\n2 1\n", &["the first being 2", "not in images.txt"]);
    refuse("1 A/x.jpg\n", "1 3\n", &["line 1", "class 3 is not in classes.txt"]);
    refuse("1 A/x.jpg\n", "1 one\n", &["line 1", "`one`"]);
    refuse("1 A/x.jpg\nx\n", "1 1\n", &["line 2", "`x`"]);
    refuse("", "", &["empty"]);
}

fn annotations(writer: Writer, file_field: &str, rows: &[(&str, u8)]) -> Vec<u8> {
    let elements: Vec<_> = rows
        .iter()
        .map(|(file, class)| {
            vec![
                writer.bytes("", &[1]),
                writer.bytes("", &[*class]),
                writer.text16("", file),
            ]
        })
        .collect();
    writer.structure("annotations", &["bbox_x1", "class", file_field], &elements)
}

#[test]
fn cars_from_one_file() {
    let writer = Writer { big: true };
    let rows = [
        ("car_ims/000002.jpg", 2),
        ("car_ims/000001.jpg", 1),
        ("car_ims/000009.jpg", 2),
    ];
    let names_cell = writer.cell(
        "class_names",
        &[writer.text16("", "AM General Hummer"), writer.text16("", "Ram C/V")],
    );
    let file = writer.file(&[
        writer.compressed(&annotations(writer, "relative_im_path", &rows)),
        writer.compressed(&names_cell),
    ]);
    let folder = tree(&[]);
    write(folder.path(), "cars_annos.mat", &file);
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!(dataset.layout, Layout::Cars196);
    assert_eq!(names(&dataset), [("AM General Hummer", 1), ("Ram C/V", 2)]);
    assert_eq!(files(&dataset)[0], "car_ims/000002.jpg");
    assert_eq!(dataset.items[0].class, 1);

    write(folder.path(), "cars_annos.mat", &file[..file.len() - 3]);
    refused(folder.path(), &["cars_annos.mat", "truncated"]);
    let bad = [("car_ims/1.jpg", 3)];
    write(
        folder.path(),
        "cars_annos.mat",
        &writer.file(&[annotations(writer, "relative_im_path", &bad), names_cell.clone()]),
    );
    refused(folder.path(), &["annotation 1", "class 3", "2 class names"]);
    let twice = [("car_ims/1.jpg", 1), ("car_ims/1.jpg", 2)];
    write(
        folder.path(),
        "cars_annos.mat",
        &writer.file(&[annotations(writer, "relative_im_path", &twice), names_cell]),
    );
    refused(folder.path(), &["annotation 2", "listed twice"]);
    write(
        folder.path(),
        "cars_annos.mat",
        &writer.file(&[annotations(writer, "path", &bad)]),
    );
    refused(folder.path(), &["relative_im_path", "bbox_x1, class, path"]);
    write(
        folder.path(),
        "cars_annos.mat",
        &writer.file(&[writer.doubles("x", &[1.0])]),
    );
    refused(folder.path(), &["`annotations`"]);
}

#[test]
fn cars_from_the_devkit() {
    let writer = Writer { big: false };
    let folder = tree(&[]);
    let meta = writer.cell("class_names", &[writer.text8("", "A"), writer.text8("", "B")]);
    write(folder.path(), "devkit/cars_meta.mat", &writer.file(&[meta]));
    let train = annotations(writer, "fname", &[("00001.jpg", 1), ("00002.jpg", 2)]);
    write(folder.path(), "devkit/cars_train_annos.mat", &writer.file(&[train]));
    let unlabelled = writer.structure("annotations", &["fname"], &[vec![writer.text8("", "00001.jpg")]]);
    write(folder.path(), "devkit/cars_test_annos.mat", &writer.file(&[unlabelled]));
    for path in [folder.path().to_owned(), folder.path().join("devkit")] {
        let dataset = read(&path, None).unwrap();
        assert_eq!(files(&dataset), ["cars_train/00001.jpg", "cars_train/00002.jpg"]);
        assert!(
            dataset
                .notes
                .iter()
                .any(|note| note.contains("1 test images without classes")),
            "{:?}",
            dataset.notes
        );
    }
    let test = annotations(writer, "fname", &[("00001.jpg", 2)]);
    write(folder.path(), "cars_test_annos_withlabels.mat", &writer.file(&[test]));
    write(folder.path(), "cars_test/cars_test/00001.jpg", b"*");
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!(files(&dataset)[2], "cars_test/cars_test/00001.jpg");
    assert_eq!(dataset.items[2].class, 1);
}

#[test]
fn cars_by_folder() {
    let folder = tree(&[
        ("names.csv", "AM General\nRam C/V Cargo\n"),
        ("anno_train.csv", "00001.jpg,1,2,3,4,2\n00002.jpg,1,2,3,4,1\n"),
        ("anno_test.csv", "00001.jpg,1,2,3,4,1\n"),
        ("car_data/car_data/train/Ram C-V Cargo/00001.jpg", "*"),
    ]);
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!(dataset.layout, Layout::Cars196);
    assert_eq!(names(&dataset), [("AM General", 1), ("Ram C/V Cargo", 2)]);
    assert_eq!(
        files(&dataset),
        [
            "car_data/car_data/train/Ram C-V Cargo/00001.jpg",
            "car_data/car_data/train/AM General/00002.jpg",
            "car_data/car_data/test/AM General/00001.jpg"
        ]
    );
    write(folder.path(), "anno_test.csv", b"00001.jpg,1,2,3,4,3\n");
    refused(folder.path(), &["anno_test.csv", "line 1", "class 3"]);
    write(folder.path(), "anno_test.csv", b"00001.jpg,1,2\n");
    refused(folder.path(), &["line 1", "class number"]);
}

const SOP_HEADER: &str = "image_id class_id super_class_id path\n";

#[test]
fn sop_wherever_the_lists_are() {
    let train = format!(
        "{SOP_HEADER}1 1 1 bicycle_final/111_0.JPG\n2 1 1 bicycle_final/111_1.JPG\n3 2 1 bicycle_final/222_0.JPG\n"
    );
    let test = format!("{SOP_HEADER}4 3 2 chair_final/333_0.JPG\n5 4 2 chair_final/444_0.JPG\n");
    for (lists, images, given) in [
        ("", "", ""),
        ("Info_Files/", "images/", ""),
        ("sop_layout/", "", ""),
        ("sop_layout/", "", "sop_layout"),
        ("Stanford_Online_Products/", "Stanford_Online_Products/", ""),
    ] {
        let folder = tree(&[
            (&format!("{lists}Ebay_train.txt"), &train),
            (&format!("{lists}Ebay_test.txt"), &test),
            (&format!("{images}bicycle_final/111_0.JPG"), "*"),
        ]);
        let dataset = read(&folder.path().join(given), None).unwrap();
        assert_eq!(dataset.layout, Layout::Sop);
        assert_eq!(inspect(&dataset, None).images_present, 1, "{lists} {images} {given}");
        assert_eq!(names(&dataset)[..2], [("bicycle 111", 1), ("bicycle 222", 2)]);
        assert_eq!(dataset.classes[3].coarse.as_deref(), Some("chair"));
        let split = dataset.split(&SplitOptions::default()).unwrap();
        assert_eq!((split.train, split.test), (vec![0, 1, 2], TestSet::Single(vec![3, 4])));
    }
}

#[test]
fn sop_errors_name_the_line() {
    let good = format!("{SOP_HEADER}9 9 1 x_final/9_0.JPG\n");
    let refuse = |train: &str, words: &[&str]| {
        refused(
            tree(&[("Ebay_train.txt", train), ("Ebay_test.txt", &good)]).path(),
            words,
        );
    };
    refuse("1 1 1 x_final/1_0.JPG\n", &["Ebay_train.txt", "line 1", "header"]);
    refuse(&format!("{SOP_HEADER}1 1 x_final/1_0.JPG\n"), &["line 2"]);
    refuse(&format!("{SOP_HEADER}1 one 1 x_final/1_0.JPG\n"), &["line 2"]);
    refuse(
        &format!("{SOP_HEADER}1 1 1 a_final/1.JPG\n1 1 1 a_final/2.JPG\n"),
        &["line 3", "image id 1", "line 2"],
    );
    refuse(
        &format!("{SOP_HEADER}1 1 1 a_final/1.JPG\n2 1 1 a_final/1.JPG\n"),
        &["line 3", "listed twice"],
    );
    refuse(
        &format!("{SOP_HEADER}1 1 1 a_final/1.JPG\n2 1 2 a_final/2.JPG\n"),
        &["two super classes"],
    );
    refuse(SOP_HEADER, &["no images"]);
    refuse("", &["line 1"]);
    refused(tree(&[("Ebay_train.txt", &good)]).path(), &["Ebay_test.txt", "both"]);
}

#[test]
fn in_shop_keeps_queries_and_gallery_apart() {
    let list = "5\nimage_name item_id evaluation_status\n\
        img/WOMEN/Dresses/id_00000002/02_1_front.jpg   id_00000002  train   \n\
        img/WOMEN/Dresses/id_00000003/02_1_front.jpg   id_00000003  train\n\
        img/MEN/Denim/id_00000001/01_1_front.jpg  id_00000001 query\n\
        img/MEN/Denim/id_00000001/01_2_side.jpg\tid_00000001 gallery\n\
        img/MEN/Denim/id_00000009/01_2_side.jpg id_00000009 gallery\n";
    for (place, image) in [
        (
            "Eval/list_eval_partition.txt",
            "Img/img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
        ),
        (
            "list_eval_partition.txt",
            "img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
        ),
        (
            "Eval/list_eval_partition.txt",
            "Img/img_highres/WOMEN/Dresses/id_00000002/02_1_front.jpg",
        ),
    ] {
        let folder = tree(&[(place, list), (image, "*")]);
        let dataset = read(folder.path(), None).unwrap();
        assert_eq!(dataset.layout, Layout::InShop);
        assert_eq!(inspect(&dataset, None).images_present, 1);
        assert_eq!(dataset.items.len(), 5, "the first row must not be lost");
        assert_eq!(
            dataset.classes.iter().map(|class| class.number).collect::<Vec<_>>(),
            [1, 2, 3, 9]
        );
        assert_eq!(dataset.classes[0].coarse.as_deref(), Some("MEN/Denim"));
        assert_eq!(dataset.items[2].class, dataset.items[3].class);
        let split = dataset.split(&SplitOptions::default()).unwrap();
        assert_eq!(
            split.test,
            TestSet::QueryGallery {
                query: vec![2],
                gallery: vec![3, 4]
            }
        );
    }
    let refuse = |list: &str, words: &[&str]| refused(tree(&[("list_eval_partition.txt", list)]).path(), words);
    refuse("x\n", &["line 1"]);
    refuse(
        "1\nimage_pair_name_1 image_pair_name_2 item_id evaluation_status\n",
        &["line 2", "another DeepFashion"],
    );
    let header = "1\nimage_name item_id evaluation_status\n";
    refuse(&format!("{header}img/a.jpg id_1\n"), &["line 3"]);
    refuse(&format!("{header}img/a.jpg id_1 val\n"), &["line 3", "`val`"]);
    refuse(&format!("{header}img/a.jpg id_x train\n"), &["line 3", "id_x"]);
    refuse(
        &format!("{header}img/a.jpg id_1 train\nimg/a.jpg id_2 train\n"),
        &["line 4", "twice"],
    );
    refuse(header, &["no images"]);
    let folder = tree(&[(
        "list_eval_partition.txt",
        "9\nimage_name item_id evaluation_status\nimg/a.jpg id_1 train\n",
    )]);
    assert!(
        read(folder.path(), None)
            .unwrap()
            .notes
            .iter()
            .any(|note| note.contains("declares 9 images, and 1"))
    );
}

#[test]
fn coil_angles() {
    let folder = tree(&[
        ("coil-20-proc/obj1__0.png", "*"),
        ("coil-20-proc/obj1__10.png", "*"),
        ("coil-20-proc/obj2__71.png", "*"),
        ("coil-100/obj10__355.png", "*"),
        ("coil-100/obj2__5.png", "*"),
        ("poses.csv", "path,class,angle_deg\nx,1,2\n"),
    ]);
    let dataset = read(&folder.path().join("coil-20-proc"), None).unwrap();
    assert_eq!(
        dataset.items.iter().map(|item| item.factors[0]).collect::<Vec<_>>(),
        [0.0, 50.0, 355.0]
    );
    assert_eq!(dataset.factors[0].period, Some(360.0));
    let dataset = read(folder.path(), None).unwrap();
    assert_eq!(dataset.layout, Layout::Coil);
    assert_eq!(names(&dataset), [("obj2", 2), ("obj10", 10)]);
    assert_eq!(
        dataset.items.iter().map(|item| item.factors[0]).collect::<Vec<_>>(),
        [5.0, 355.0]
    );
    assert!(
        dataset.notes.iter().any(|note| note.contains("only coil-100 was read")),
        "{:?}",
        dataset.notes
    );
    refused(
        tree(&[("coil-20/obj1__72.png", "*")]).path().join("coil-20").as_path(),
        &["view 72", "71"],
    );
    refused(tree(&[("coil-100/obj1__360.png", "*")]).path(), &["view 360", "359"]);
    refused(
        tree(&[("coil-100/obj1__5.png", "*"), ("coil-100/obj1__5.jpg", "*")]).path(),
        &["there twice"],
    );
}

/// Members of a small Omniglot part.
fn drawings(part: &str, first: u32) -> Vec<String> {
    let characters = [("Greek", 1), ("Greek", 2), ("Latin", 1)];
    (first..)
        .zip(characters)
        .flat_map(|(number, (alphabet, character))| {
            (1..=2).map(move |drawer| format!("{part}/{alphabet}/character{character:02}/{number:04}_{drawer:02}.png"))
        })
        .collect()
}

fn tar_gz(members: &[String]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for name in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(name.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn zipped(members: &[String]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in members {
        writer
            .start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(name.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn omniglot_from_folders_and_archives() {
    let (background, evaluation) = (drawings("images_background", 1), drawings("images_evaluation", 4));
    let mut junk = background.clone();
    junk.extend([
        "__MACOSX/images_background/Greek/character01/._0001_01.png".into(),
        "images_background/x.txt".into(),
    ]);

    let archives = tree(&[]);
    write(archives.path(), "images_background.zip", &zipped(&junk));
    write(archives.path(), "images_evaluation.tar.gz", &tar_gz(&evaluation));
    let folders = tree(&[]);
    for name in background.iter().chain(&evaluation) {
        write(folders.path(), name, name.as_bytes());
    }
    let several = [
        archives.path().join("images_evaluation.tar.gz"),
        archives.path().join("images_background.zip"),
    ];
    for dataset in [
        read(archives.path(), None).unwrap(),
        read(folders.path(), None).unwrap(),
        read_several(&several, None).unwrap(),
    ] {
        assert_eq!(dataset.layout, Layout::Omniglot);
        assert_eq!((dataset.items.len(), dataset.classes.len()), (12, 6));
        assert_eq!(dataset.classes[2].name, "Latin/character01");
        assert_eq!(dataset.classes[2].coarse.as_deref(), Some("Latin"));
        assert_eq!(
            dataset.classes.iter().map(|class| class.number).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
        let split = dataset.split(&SplitOptions::default()).unwrap();
        assert_eq!(
            (split.train, split.test),
            ((0..6).collect(), TestSet::Single((6..12).collect()))
        );
        assert_eq!(inspect(&dataset, None).images_present, 12);
    }
    // One archive alone is split into halves of its characters.
    let alone = read(&several[0], None).unwrap();
    assert!(alone.items.iter().all(|item| item.part == Part::Unassigned));
    assert_eq!(alone.classes[0].number, 4);
    let Source::Encoded { name, bytes } = &alone.items[0].source else {
        panic!("not in memory")
    };
    assert_eq!(
        (name.as_bytes(), name.as_str()),
        (&bytes[..], "images_evaluation/Greek/character01/0004_01.png")
    );
    let error = alone.split(&SplitOptions::default()).unwrap_err().to_string();
    assert!(error.contains("2 classes train, 1 test"), "{error}");

    let error = read_several(&[several[0].clone(), several[0].clone()], None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("read twice"), "{error}");
    let error = read_several(&[several[0].clone(), "/no/such".into()], None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("/no/such"), "{error}");
}

#[test]
fn damaged_and_foreign_archives_are_errors() {
    let folder = tree(&[
        ("x.zip", "no zip"),
        ("x.tar.gz", "no gzip"),
        ("x.tar", "no tar"),
        ("empty.zip", ""),
    ]);
    let mut cut = tar_gz(&drawings("images_background", 1));
    cut.truncate(cut.len() / 2);
    write(folder.path(), "cut.tar.gz", &cut);
    for name in ["x.zip", "x.tar.gz", "x.tar", "empty.zip", "cut.tar.gz"] {
        refused(&folder.path().join(name), &[name]);
    }
    write(
        folder.path(),
        "other.tar.gz",
        &tar_gz(&["cats/1.png".to_owned(), "dogs/1.png".to_owned()]),
    );
    refused(
        &folder.path().join("other.tar.gz"),
        &["no drawings of Omniglot", "unpack"],
    );
    let nowhere = tree(&[]);
    write(
        nowhere.path(),
        "a.zip",
        &zipped(&["../../Greek/character01/0001_01.png".to_owned()]),
    );
    // Nothing is written to disk, so a path that climbs is only a name.
    assert_eq!(read(&nowhere.path().join("a.zip"), None).unwrap().items.len(), 1);
}

/// Images, classes, and (images, classes) of both sides of the default split.
fn counts(inspection: &Inspection) -> (usize, usize, (usize, usize), (usize, usize)) {
    let split = inspection.split.as_ref().expect("a split");
    (
        inspection.images,
        inspection.classes,
        (split.train_images, split.train_classes),
        (split.test_images, split.test_classes),
    )
}

fn inspected(inside: &str) -> Option<Inspection> {
    Some(inspect(&read(&shared(inside)?, None).unwrap(), None))
}

#[test]
fn published_counts_of_the_annotation_folders() {
    if let Some(cub) = inspected("annotations/cub200_2011") {
        assert_eq!(counts(&cub), (11_788, 200, (5_864, 100), (5_924, 100)));
        assert!(
            cub.annotations_only && cub.notes[0].contains("match the published"),
            "{cub}"
        );
        assert!(
            cub.to_string()
                .contains("11,788 listed; none of the image files is here"),
            "{cub}"
        );
    }
    if let Some(cars) = inspected("annotations/cars196") {
        assert_eq!(counts(&cars), (16_185, 196, (8_054, 98), (8_131, 98)));
        assert!(
            cars.annotations_only && cars.notes[0].contains("match the published"),
            "{cars}"
        );
    }
    if let Some(devkit) = inspected("annotations/cars196/devkit") {
        assert_eq!((devkit.images, devkit.classes), (8_144, 196));
        let text = devkit.to_string();
        assert!(
            text.contains("8,041 test images without classes") && text.contains("all 16,185 images"),
            "{text}"
        );
        assert!(text.contains("closed-set Cars196 training split"), "{text}");
    }
    if let Some(in_shop) = inspected("annotations/inshop") {
        assert_eq!(counts(&in_shop), (52_712, 7_982, (25_882, 3_997), (26_830, 3_985)));
        let split = in_shop.split.as_ref().unwrap();
        assert_eq!((split.query_images, split.gallery_images), (Some(14_218), Some(12_612)));
        assert!(in_shop.notes[0].contains("match the published"), "{in_shop}");
    }
}

#[test]
fn counts_of_the_real_sets() {
    let complete = |inspection: &Inspection| inspection.images_absent == 0;
    for path in ["cub50/CUB_200_2011", "cub50"] {
        if let Some(cub) = inspected(path) {
            assert_eq!(counts(&cub), (2_889, 50, (1_402, 25), (1_487, 25)));
            assert!(
                complete(&cub) && cub.notes[0].contains("50 of its 200 classes"),
                "{cub}"
            );
        }
    }
    if let Some(cars) = inspected("cars196") {
        assert_eq!(counts(&cars), (8_144, 196, (4_052, 98), (4_092, 98)));
        assert!(
            complete(&cars) && cars.notes[0].contains("this is the closed-set Cars196 training split"),
            "{cars}"
        );
    }
    for path in ["birds525", "birds525/sop_layout"] {
        if let Some(birds) = inspected(path) {
            assert_eq!(
                (birds.layout, counts(&birds)),
                (Layout::Sop, (1_500, 300, (750, 150), (750, 150)))
            );
            assert!(complete(&birds), "{birds}");
        }
    }
    if let Some(path) = shared("birds525/labels.csv") {
        let birds = inspect(&read(&path, None).unwrap(), None);
        assert_eq!(
            (birds.layout, counts(&birds)),
            (Layout::Csv, (1_500, 300, (750, 150), (750, 150)))
        );
        assert!(complete(&birds), "{birds}");
        let images = inspected("birds525/images").unwrap();
        assert_eq!((images.layout, counts(&images)), (Layout::ImageFolder, counts(&birds)));
    }
    for path in ["coil", "coil/coil-100"] {
        if let Some(coil) = inspected(path) {
            assert_eq!(counts(&coil), (3_600, 50, (1_800, 25), (1_800, 25)));
            assert_eq!((coil.factors[0].min, coil.factors[0].max), (0.0, 355.0));
            assert!(complete(&coil), "{coil}");
        }
    }
    if let Some(coil) = inspected("coil/coil-20-proc") {
        assert_eq!(counts(&coil), (1_440, 20, (720, 10), (720, 10)));
        assert!(coil.notes[0].contains("match the published"), "{coil}");
    }
    if let Some(omniglot) = inspected("omniglot") {
        assert_eq!(counts(&omniglot), (32_460, 1_623, (19_280, 964), (13_180, 659)));
        assert!(
            omniglot.notes[0].contains("match the published") && omniglot.coarse_classes == Some(50),
            "{omniglot}"
        );
    }
    if let Some(evaluation) = inspected("omniglot/images_evaluation.tar.gz") {
        assert_eq!(counts(&evaluation), (13_180, 659, (6_600, 330), (6_580, 329)));
        assert!(evaluation.notes[0].contains("evaluation part only"), "{evaluation}");
    }
}

#[test]
fn the_angles_of_coil_agree_with_its_table() {
    let Some(table) = shared("coil/poses.csv") else { return };
    let text = fs::read_to_string(&table).unwrap();
    for (folder, set) in [("coil-20-proc", "coil20"), ("coil-100", "coil100")] {
        let root = table.parent().unwrap();
        let dataset = read(&root.join(folder), None).unwrap();
        let angle = |item: &crate::data::Item| (item.source.name(), item.factors[0]);
        let found: std::collections::BTreeMap<String, f32> = dataset.items.iter().map(angle).collect();
        let mut rows = 0;
        for row in text.lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            if cells[1] == set {
                rows += 1;
                let path = root.join(cells[0]).display().to_string();
                assert_eq!(found[&path], cells[3].parse::<f32>().unwrap(), "{path}");
            }
        }
        assert_eq!(rows, dataset.items.len());
    }
}
