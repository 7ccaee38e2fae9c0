//! The report on small folders.

use super::inspect;
use crate::data::dataset::Source;
use crate::data::layouts::{read, tests::tree};

#[test]
fn counts_present_absent_and_bad_images() {
    let folder = tree(&[
        (
            "list.csv",
            "path,label,category\na1.png,a,x\na2.png,a,x\nb1.png,b,y\nb2.png,b,y\nc1.png,c,y\nd1.png,d,y\n",
        ),
        ("a1.png", "1"),
        ("a2.png", "22"),
        ("b1.png", "333"),
        ("b2.png", ""),
    ]);
    let dataset = read(folder.path(), None).unwrap();
    let check = |source: &Source| -> Result<(u32, u32), String> {
        let Source::File(path) = source else {
            return Err("not a file".into());
        };
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len() as u32;
        if size == 0 {
            Err("empty".into())
        } else {
            Ok((size, 10 - size))
        }
    };
    let report = inspect(&dataset, Some(&check));
    assert_eq!((report.images, report.images_present, report.images_absent), (6, 4, 2));
    assert!(!report.annotations_only && report.absent_examples.len() == 2);
    assert_eq!((report.images_checked, report.bad_images.len()), (Some(4), 1));
    assert!(report.bad_images[0].image.ends_with("b2.png") && report.bad_images[0].problem == "empty");
    let sizes = report.image_sizes.unwrap();
    assert_eq!(
        (sizes.min_width, sizes.max_width, sizes.min_height, sizes.max_height),
        (1, 3, 7, 9)
    );
    let classes = &report.class_sizes;
    assert_eq!(
        (classes.min, classes.median, classes.max, classes.with_one_image),
        (1, 1.5, 2, 2)
    );
    assert_eq!(report.coarse_classes, Some(2));
    let text = report.to_string();
    for words in [
        "6 listed; 4 present, 2 absent",
        "c1.png",
        "4 images, 1 bad",
        "b2.png: empty",
        "median 1.5",
    ] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["split"]["train-classes"], 2);
    assert_eq!(json["bad-images"][0]["problem"], "empty");
    assert_eq!(inspect(&dataset, None).images_checked, None);
}

#[test]
fn one_class_is_reported_not_refused() {
    let folder = tree(&[("a/1.png", "*"), ("a/2.png", "*")]);
    let report = inspect(&read(folder.path(), None).unwrap(), None);
    assert!(report.split.is_none());
    assert!(report.to_string().contains("impossible") && report.to_string().contains("at least two classes"));
}
