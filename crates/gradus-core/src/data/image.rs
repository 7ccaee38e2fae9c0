//! Decoding: any image file → eight-bit RGB pixels, or an error that names the image.
//!
//! Greyscale, palette, one-bit, 16-bit and CMYK images become RGB; an EXIF orientation is applied; a transparency
//! channel is dropped without compositing, as `Image.convert("RGB")` of Pillow does, so that colours under transparent
//! pixels show. The format is told from the content, never from the extension. Sizes are checked in the header, before
//! anything is allocated.
//!
//! The decoders below are lenient: a JPEG cut in half decodes with a grey lower half. A training set must not contain
//! such pictures unnoticed, so a JPEG without its end marker is refused here.

mod jpeg;

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use rayon::prelude::*;

use super::dataset::{DataError, Item, Source};

/// The most pixels an image may have unless told otherwise: 100 million (300 MB as RGB).
pub const DEFAULT_PIXEL_LIMIT: u64 = 100_000_000;

/// The share of broken images that is tolerated unless told otherwise: 0.1 %.
pub const DEFAULT_MAX_BAD_IMAGES: f64 = 0.001;

/// Changes whenever the same file is decoded to other pixels than before (another decoder, another treatment of
/// orientations), so that pixels kept on the disk by an older gradus do not count.
pub(super) const DECODING_VERSION: u32 = 2;

/// Why an image could not be decoded; every message names the image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be read at all.
    #[error("{name}: cannot be read: {source}")]
    Unreadable {
        /// Which image.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing in it: a file of 0 bytes, or an image without pixels.
    #[error("{name}: {problem}")]
    Empty {
        /// Which image.
        name: String,
        /// What is empty.
        problem: &'static str,
    },
    /// It is not an image of a known format, or its content is damaged.
    #[error("{name}: {problem}")]
    Broken {
        /// Which image.
        name: String,
        /// What the decoder says.
        problem: String,
    },
    /// Its header announces more pixels than the limit.
    #[error("{name}: {width} x {height} pixels are more than the limit of {limit}; scale the image down")]
    TooLarge {
        /// Which image.
        name: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most pixels allowed.
        limit: u64,
    },
}

/// Decodes an image to RGB, refusing more than [`DEFAULT_PIXEL_LIMIT`] pixels.
///
/// # Errors
/// [`ImageError`], naming the image, when it is missing, empty, damaged, of an unknown format or too large.
pub fn decode(source: &Source) -> Result<RgbImage, ImageError> {
    decode_within(source, DEFAULT_PIXEL_LIMIT).map(Arc::unwrap_or_clone)
}

/// How image files become pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoding {
    /// The most pixels an image may have (default [`DEFAULT_PIXEL_LIMIT`]).
    pub pixel_limit: u64,
    /// A JPEG is decoded at a half, a quarter or an eighth of its size as long as its short side keeps so many pixels, in a
    /// fraction of the time and memory: a photograph of 4000 pixels holds far more than a view of 224 shows. The default, 0,
    /// decodes it whole; only then are the pixels those that Pillow decodes.
    pub jpeg_short_side: u32,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            pixel_limit: DEFAULT_PIXEL_LIMIT,
            jpeg_short_side: 0,
        }
    }
}

/// Decodes an image to RGB, refusing more than `pixel_limit` pixels; drawn images are shared, not copied.
///
/// # Errors
/// As [`decode`].
pub fn decode_within(source: &Source, pixel_limit: u64) -> Result<Arc<RgbImage>, ImageError> {
    let decoding = Decoding {
        pixel_limit,
        ..Decoding::default()
    };
    decode_as(source, decoding)
}

/// Decodes an image to RGB in the way asked for; drawn images are shared, not copied.
///
/// # Errors
/// As [`decode`].
pub fn decode_as(source: &Source, decoding: Decoding) -> Result<Arc<RgbImage>, ImageError> {
    match source {
        Source::File(path) => {
            let bytes = read(path, &source.name(), decoding.pixel_limit)?;
            decode_bytes(&bytes, source, decoding).map(Arc::new)
        }
        Source::Encoded { bytes, .. } => decode_bytes(bytes, source, decoding).map(Arc::new),
        Source::Drawn { pixels, .. } => {
            check_size(pixels.width(), pixels.height(), &source.name(), decoding.pixel_limit)?;
            Ok(Arc::clone(pixels))
        }
        Source::Turned { source, quarters } => Ok(turn(decode_as(source, decoding)?, *quarters)),
        Source::Vector { name, .. } => Err(ImageError::Broken {
            name: name.clone(),
            problem: "it is a vector that another model made; there is no image to decode".to_owned(),
        }),
    }
}

/// Pixels turned clockwise by quarters of a turn.
pub(super) fn turn(pixels: Arc<RgbImage>, quarters: u8) -> Arc<RgbImage> {
    match quarters % 4 {
        0 => pixels,
        1 => Arc::new(image::imageops::rotate90(&*pixels)),
        2 => Arc::new(image::imageops::rotate180(&*pixels)),
        _ => Arc::new(image::imageops::rotate270(&*pixels)),
    }
}

/// Reads a file, refusing one so long that its pixels could not be within the limit either.
fn read(path: &Path, name: &str, pixel_limit: u64) -> Result<Vec<u8>, ImageError> {
    let unreadable = |source| ImageError::Unreadable {
        name: name.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length > allocation_limit(pixel_limit) {
        let problem = format!("the file has {length} bytes, more than an image of {pixel_limit} pixels can need");
        return Err(ImageError::Broken {
            name: name.to_owned(),
            problem,
        });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Bytes a decoder may allocate: 16 a pixel (four 32-bit channels, the widest kind) and room for small images' tables.
fn allocation_limit(pixel_limit: u64) -> u64 {
    pixel_limit.saturating_mul(16).saturating_add(64 << 20)
}

fn check_size(width: u32, height: u32, name: &str, limit: u64) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::Empty {
            name: name.to_owned(),
            problem: "the image has no pixels",
        });
    }
    if u64::from(width) * u64::from(height) > limit {
        return Err(ImageError::TooLarge {
            name: name.to_owned(),
            width,
            height,
            limit,
        });
    }
    Ok(())
}

fn decode_bytes(bytes: &[u8], source: &Source, decoding: Decoding) -> Result<RgbImage, ImageError> {
    let name = source.name();
    if bytes.is_empty() {
        return Err(ImageError::Empty {
            name,
            problem: "the file is empty (0 bytes)",
        });
    }
    if jpeg::is_jpeg(bytes) && !jpeg::has_end(bytes) {
        return Err(ImageError::Broken {
            name,
            problem: "the JPEG is truncated: its end marker is missing".into(),
        });
    }
    // A decoder that panics on hostile bytes must cost one image, not the run.
    catch_unwind(AssertUnwindSafe(|| decode_checked(bytes, &name, decoding))).unwrap_or_else(|_| {
        Err(ImageError::Broken {
            name,
            problem: "the decoder failed on its content".into(),
        })
    })
}

fn decode_checked(bytes: &[u8], name: &str, decoding: Decoding) -> Result<RgbImage, ImageError> {
    let broken = |problem: String| ImageError::Broken {
        name: name.to_owned(),
        problem,
    };
    let pixel_limit = decoding.pixel_limit;
    if jpeg::is_jpeg(bytes) {
        let check = |width, height| check_size(width, height, name, pixel_limit);
        if let Some(image) = jpeg::decode(bytes, decoding.jpeg_short_side, check, broken)? {
            return Ok(image);
        }
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|source| ImageError::Unreadable {
            name: name.to_owned(),
            source,
        })?;
    if reader.format().is_none() {
        return Err(broken(
            "not an image: the content is none of JPEG, PNG, WebP, GIF, BMP and TIFF".into(),
        ));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(allocation_limit(pixel_limit));
    reader.limits(limits);
    let mut decoder = reader
        .into_decoder()
        .map_err(|error| broken(format!("cannot be decoded: {error}")))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, name, pixel_limit)?;
    // Damaged metadata is no reason to refuse good pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image =
        DynamicImage::from_decoder(decoder).map_err(|error| broken(format!("cannot be decoded: {error}")))?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// How [`scan_with`] looks for broken images.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanOptions {
    /// The share of broken images that is tolerated, 0 to 1 (default [`DEFAULT_MAX_BAD_IMAGES`]).
    pub max_bad_images: f64,
    /// The most pixels an image may have (default [`DEFAULT_PIXEL_LIMIT`]).
    pub pixel_limit: u64,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            max_bad_images: DEFAULT_MAX_BAD_IMAGES,
            pixel_limit: DEFAULT_PIXEL_LIMIT,
        }
    }
}

/// Decodes every image in parallel and returns the broken ones as (index, what is wrong), in the order of the items.
///
/// `max_bad_images` is the tolerated share of broken images; the number tolerated is that share of the images, rounded
/// down, so that the default of 0.001 tolerates none of fewer than 1,000 images.
///
/// # Errors
/// [`DataError::Unusable`], naming up to five of them, when more are broken, or when none can be used.
pub fn scan(items: &[Item], max_bad_images: f64) -> Result<Vec<(usize, String)>, DataError> {
    scan_with(
        items,
        &ScanOptions {
            max_bad_images,
            ..ScanOptions::default()
        },
        &|_| {},
    )
}

/// [`scan`] with all options; `progress` is told the number of images done, from several threads.
///
/// # Errors
/// As [`scan`].
pub fn scan_with(
    items: &[Item],
    options: &ScanOptions,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<(usize, String)>, DataError> {
    let check = |index: usize| decode_within(&items[index].source, options.pixel_limit).map(drop);
    scan_by(items.len(), options, &check, progress)
}

/// [`scan_with`] for `count` images that `check` decodes, or knows to be whole, by their index.
///
/// # Errors
/// As [`scan`].
pub fn scan_by(
    count: usize,
    options: &ScanOptions,
    check: &(dyn Fn(usize) -> Result<(), ImageError> + Sync),
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<(usize, String)>, DataError> {
    if !(0.0..=1.0).contains(&options.max_bad_images) {
        return Err(DataError::Unusable(format!(
            "max-bad-images is a share of the images between 0 and 1, not {}",
            options.max_bad_images
        )));
    }
    let done = AtomicUsize::new(0);
    let broken: Vec<(usize, String)> = (0..count)
        .into_par_iter()
        .filter_map(|index| {
            let problem = check(index).err().map(|error| error.to_string());
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            problem.map(|problem| (index, problem))
        })
        .collect();
    // The small addition keeps a share such as 0.29 of 100 at 29 where the product is a rounding error short of it.
    let allowed = (options.max_bad_images * count as f64 + 1e-9).floor() as usize;
    if !broken.is_empty() && (broken.len() > allowed || broken.len() == count) {
        return Err(DataError::Unusable(too_many(
            &broken,
            count,
            allowed,
            options.max_bad_images,
        )));
    }
    Ok(broken)
}

/// The paragraph for too many broken images.
fn too_many(broken: &[(usize, String)], count: usize, allowed: usize, share: f64) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<&str> = broken.iter().take(NAMED).map(|(_, problem)| problem.as_str()).collect();
    let more = format!("and {} more", broken.len().saturating_sub(NAMED));
    if broken.len() > NAMED {
        names.push(&more);
    }
    let names = names.join("; ");
    let bad = broken.len();
    if bad == count {
        return format!("none of the {count} images can be used: {names}");
    }
    // Rounded up, so that the number printed does tolerate them.
    let enough = (bad as f64 / count as f64 * 1e4).ceil() / 1e4;
    format!(
        "{bad} of {count} images cannot be used, and --max-bad-images {share} tolerates {allowed}: {names}. Repair or \
         remove them, or go on without them with --max-bad-images {enough}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Part;
    use image::{ImageBuffer, ImageFormat, Luma};

    fn encoded(name: &str, bytes: Vec<u8>) -> Source {
        Source::Encoded {
            name: name.into(),
            bytes: bytes.into(),
        }
    }

    fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// Left half red, right half blue, top row green: no symmetry, so that every orientation differs.
    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| match (x, y) {
            (_, y) if y < height / 4 => image::Rgb([0, 255, 0]),
            (x, _) if x < width / 2 => image::Rgb([255, 0, 0]),
            _ => image::Rgb([0, 0, 255]),
        })
    }

    fn fixture(name: &str) -> Source {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images/");
        Source::File(format!("{folder}{name}").into())
    }

    fn close(pixel: image::Rgb<u8>, expected: [u8; 3], tolerance: u8) -> bool {
        pixel.0.iter().zip(expected).all(|(&a, b)| a.abs_diff(b) <= tolerance)
    }

    fn problem(source: &Source) -> String {
        decode(source).expect_err("must be refused").to_string()
    }

    #[test]
    fn greyscale_palette_and_one_bit_become_rgb() {
        let grey = DynamicImage::ImageLuma8(ImageBuffer::from_fn(8, 8, |x, _| Luma([x as u8 * 30])));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::Tiff] {
            let image = decode(&encoded("grey", encode(&grey, format))).unwrap();
            assert!(
                close(*image.get_pixel(7, 3), [210; 3], 6),
                "{format:?} {:?}",
                image.get_pixel(7, 3)
            );
            assert!(close(*image.get_pixel(1, 3), [30; 3], 6), "{format:?}");
        }
        // Made by tools/golden/make_images.py: left half (200, 30, 90), right half (10, 160, 40).
        let palette = decode(&fixture("palette.png")).unwrap();
        assert_eq!(palette.get_pixel(0, 0).0, [200, 30, 90]);
        assert_eq!(palette.get_pixel(7, 7).0, [10, 160, 40]);
        let one_bit = decode(&fixture("one_bit.png")).unwrap();
        assert_eq!(
            (one_bit.get_pixel(0, 0).0, one_bit.get_pixel(7, 0).0),
            ([0; 3], [255; 3])
        );
    }

    #[test]
    fn sixteen_bits_are_scaled_not_clipped() {
        let deep = DynamicImage::ImageLuma16(ImageBuffer::from_fn(4, 1, |x, _| Luma([x as u16 * 21_845])));
        let image = decode(&encoded("deep.png", encode(&deep, ImageFormat::Png))).unwrap();
        let values: Vec<u8> = image.pixels().map(|pixel| pixel.0[1]).collect();
        assert_eq!(values, [0, 85, 170, 255]);
    }

    #[test]
    fn cmyk_jpeg_has_the_colours_pillow_shows() {
        // tools/golden/make_images.py prints what Pillow converts the two halves of the file to.
        let image = decode(&fixture("cmyk.jpg")).unwrap();
        assert!(
            close(*image.get_pixel(1, 4), [200, 30, 90], 6),
            "{:?}",
            image.get_pixel(1, 4)
        );
        assert!(
            close(*image.get_pixel(14, 4), [10, 160, 40], 6),
            "{:?}",
            image.get_pixel(14, 4)
        );
    }

    #[test]
    fn transparency_is_dropped_not_composited() {
        let mut image = image::RgbaImage::from_pixel(3, 3, image::Rgba([9, 80, 200, 0]));
        image.put_pixel(0, 0, image::Rgba([1, 2, 3, 255]));
        let bytes = encode(&DynamicImage::ImageRgba8(image), ImageFormat::Png);
        let decoded = decode(&encoded("clear.png", bytes)).unwrap();
        assert_eq!(
            (decoded.get_pixel(0, 0).0, decoded.get_pixel(2, 2).0),
            ([1, 2, 3], [9, 80, 200])
        );
    }

    /// Puts an EXIF segment holding only the orientation behind the start marker of a JPEG.
    fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.push(orientation);
        exif.extend([0, 0, 0, 0, 0, 0]);
        let mut bytes = jpeg[..2].to_vec();
        bytes.extend([0xff, 0xe1]);
        bytes.extend((exif.len() as u16 + 2).to_be_bytes());
        bytes.extend(exif);
        bytes.extend(&jpeg[2..]);
        bytes
    }

    #[test]
    fn exif_orientation_is_applied() {
        let jpeg = encode(&DynamicImage::ImageRgb8(picture(32, 16)), ImageFormat::Jpeg);
        let (red, green, blue) = ([255, 0, 0], [0, 255, 0], [0, 0, 255]);
        // What the top left, top right and bottom left corners show, from the tag's definition of where the stored
        // first row and first column are: 1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top,
        // 6 right top, 7 right bottom, 8 left bottom.
        for (orientation, size, top_left, top_right, bottom_left) in [
            (1, (32, 16), green, green, red),
            (2, (32, 16), green, green, blue),
            (3, (32, 16), blue, red, green),
            (4, (32, 16), red, blue, green),
            (5, (16, 32), green, red, green),
            (6, (16, 32), red, green, blue),
            (7, (16, 32), blue, green, red),
            (8, (16, 32), green, blue, green),
        ] {
            let image = decode(&encoded("turned.jpg", with_orientation(&jpeg, orientation))).unwrap();
            assert_eq!(image.dimensions(), size, "orientation {orientation}");
            let (right, bottom) = (size.0 - 2, size.1 - 2);
            for (x, y, expected) in [(1, 1, top_left), (right, 1, top_right), (1, bottom, bottom_left)] {
                let pixel = *image.get_pixel(x, y);
                assert!(
                    close(pixel, expected, 60),
                    "orientation {orientation} at ({x}, {y}): {pixel:?}"
                );
            }
        }
        // A tag out of range is ignored.
        assert_eq!(
            decode(&encoded("odd.jpg", with_orientation(&jpeg, 77)))
                .unwrap()
                .dimensions(),
            (32, 16)
        );
    }

    #[test]
    fn exif_orientation_is_applied_to_a_reduced_picture() {
        let picture = RgbImage::from_fn(64, 48, |x, y| image::Rgb([(4 * x) as u8, (5 * y) as u8, 90]));
        let jpeg = encode(&DynamicImage::ImageRgb8(picture), ImageFormat::Jpeg);
        let reduced = |bytes: Vec<u8>| {
            let decoding = Decoding {
                jpeg_short_side: 24,
                ..Decoding::default()
            };
            decode_as(&encoded("turned.jpg", bytes), decoding).unwrap()
        };
        let upright = reduced(jpeg.clone());
        assert_eq!(upright.dimensions(), (32, 24));
        for orientation in 1..=8 {
            let mut expected = DynamicImage::ImageRgb8((*upright).clone());
            expected.apply_orientation(Orientation::from_exif(orientation).unwrap());
            let turned = reduced(with_orientation(&jpeg, orientation));
            assert_eq!(*turned, expected.into_rgb8(), "orientation {orientation}");
        }
    }

    #[test]
    fn a_truncated_file_is_broken_wherever_it_is_cut() {
        let image = DynamicImage::ImageRgb8(picture(64, 64));
        for format in [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Bmp,
            ImageFormat::Gif,
            ImageFormat::WebP,
        ] {
            let bytes = encode(&image, format);
            for keep in [1, 3, 20, bytes.len() / 3, bytes.len() / 2, bytes.len() * 9 / 10] {
                let message = problem(&encoded("cut.img", bytes[..keep].to_vec()));
                assert!(message.starts_with("cut.img: "), "{format:?} {keep}: {message}");
            }
        }
        let jpeg = encode(&image, ImageFormat::Jpeg);
        let message = problem(&encoded("cut.jpg", jpeg[..jpeg.len() - 2].to_vec()));
        assert!(message.contains("truncated"), "{message}");
        // Garbage after the end is harmless and common.
        let trailing = [jpeg.as_slice(), b"trailing"].concat();
        assert!(decode(&encoded("trailing.jpg", trailing)).is_ok());
    }

    #[test]
    fn other_files_are_refused_by_name() {
        assert!(problem(&encoded("nothing.jpg", Vec::new())).contains("nothing.jpg: the file is empty (0 bytes)"));
        assert!(problem(&encoded("text.png", b"hello, this is no image".to_vec())).contains("text.png: not an image"));
        assert!(problem(&encoded("noise.jpg", (0..=255).collect())).starts_with("noise.jpg: "));
        let missing = Source::File("no/such/image.jpg".into());
        assert!(problem(&missing).contains("no/such/image.jpg: cannot be read"));
        let folder = Source::File(std::env::temp_dir());
        assert!(matches!(
            decode(&folder),
            Err(ImageError::Unreadable { .. } | ImageError::Broken { .. })
        ));
        let no_pixels = Source::Drawn {
            name: "flat".into(),
            pixels: Arc::new(RgbImage::new(0, 9)),
        };
        assert!(problem(&no_pixels).contains("no pixels"));
    }

    #[test]
    fn the_extension_does_not_decide() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("really_a_png.jpg");
        std::fs::write(&path, encode(&DynamicImage::ImageRgb8(picture(5, 4)), ImageFormat::Png)).unwrap();
        assert_eq!(decode(&Source::File(path)).unwrap(), picture(5, 4));
    }

    /// A PNG whose header announces a size, with no pixel data behind it.
    fn png_header(width: u32, height: u32) -> Vec<u8> {
        let mut chunk = b"IHDR".to_vec();
        chunk.extend(width.to_be_bytes());
        chunk.extend(height.to_be_bytes());
        chunk.extend([8, 2, 0, 0, 0]);
        let mut checksum = flate2::Crc::new();
        checksum.update(&chunk);
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
        bytes.extend(chunk);
        bytes.extend(checksum.sum().to_be_bytes());
        bytes.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        bytes
    }

    #[test]
    fn huge_images_are_refused_from_the_header() {
        let message = problem(&encoded("huge.png", png_header(20_000, 20_000)));
        assert!(
            message.contains("huge.png: 20000 x 20000 pixels are more than the limit of 100000000"),
            "{message}"
        );
        // Larger than any memory: only a check before allocating survives this.
        assert!(problem(&encoded("vast.png", png_header(2_000_000_000, 2_000_000_000))).starts_with("vast.png: "));
        let small = encoded(
            "small.png",
            encode(&DynamicImage::ImageRgb8(picture(20, 10)), ImageFormat::Png),
        );
        assert!(matches!(
            decode_within(&small, 199),
            Err(ImageError::TooLarge {
                width: 20,
                height: 10,
                ..
            })
        ));
        assert!(decode_within(&small, 200).is_ok());
        assert!(
            decode(&encoded(
                "dot.png",
                encode(&DynamicImage::new_rgb8(1, 1), ImageFormat::Png)
            ))
            .is_ok()
        );
    }

    fn items(count: usize, broken: &[usize]) -> Vec<Item> {
        let good = encode(&DynamicImage::ImageRgb8(picture(4, 4)), ImageFormat::Png);
        (0..count)
            .map(|index| {
                let bytes = if broken.contains(&index) {
                    good[..20].to_vec()
                } else {
                    good.clone()
                };
                let source = encoded(&format!("image{index}.png"), bytes);
                Item {
                    source,
                    class: 0,
                    part: Part::Unassigned,
                    factors: Vec::new(),
                }
            })
            .collect()
    }

    #[test]
    fn broken_images_are_listed_up_to_the_limit() {
        assert!(scan(&items(30, &[]), 0.0).unwrap().is_empty());
        assert!(scan(&[], 0.5).unwrap().is_empty());
        let found = scan(&items(100, &[70, 3]), 0.02).unwrap();
        assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [3, 70]);
        assert!(found[1].1.contains("image70.png"), "{found:?}");
        // In floating point 0.29 * 100 is a little less than 29.
        let broken: Vec<usize> = (0..29).collect();
        assert_eq!(scan(&items(100, &broken), 0.29).unwrap().len(), 29);
    }

    #[test]
    fn too_many_broken_images_name_five_and_a_way_out() {
        let message = scan(&items(40, &[0, 1, 2, 3, 4, 5, 6]), 0.1).unwrap_err().to_string();
        assert!(
            message.contains("7 of 40 images cannot be used, and --max-bad-images 0.1 tolerates 4"),
            "{message}"
        );
        assert!(
            message.contains("image4.png") && !message.contains("image5.png"),
            "{message}"
        );
        assert!(
            message.contains("and 2 more") && message.contains("--max-bad-images 0.175"),
            "{message}"
        );
        assert_eq!(scan(&items(40, &[0, 1, 2, 3, 4, 5, 6]), 0.175).unwrap().len(), 7);
        let all = scan(&items(3, &[0, 1, 2]), 1.0).unwrap_err().to_string();
        assert!(all.contains("none of the 3 images can be used"), "{all}");
        assert!(scan(&items(3, &[]), f64::NAN).is_err());
        assert!(scan(&items(3, &[]), 1.5).is_err());
    }

    #[test]
    fn progress_counts_every_image() {
        let last = AtomicUsize::new(0);
        let options = ScanOptions::default();
        scan_with(&items(9, &[]), &options, &|done| {
            last.fetch_max(done, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(last.into_inner(), 9);
    }
}
