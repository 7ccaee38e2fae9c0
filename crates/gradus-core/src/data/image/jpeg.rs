//! JPEG → RGB, to the last bit the pixels that Pillow and torchvision see.
//!
//! The standard lets decoders round, and widen the colour channels, as they like: `zune-jpeg`, the decoder behind `image`,
//! differs from libjpeg-turbo by up to four levels of 255, which moves an embedding by a hundredth. A model that was
//! trained in Python, or is exported to be run there, must see the same picture, so the decoder is libjpeg-turbo's (in the
//! copy that MozJPEG keeps; decoding is the same code). Its vector instructions are compiled in where `nasm` is at hand; the
//! pixels are the same with and without.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};

/// The most scans a progressive JPEG may have. Cameras and encoders write about ten; a small file of thousands would take
/// minutes, because every scan goes over all pixels.
const MOST_SCANS: usize = 500;

/// What stands before the orientation in the metadata.
const EXIF: &[u8] = b"Exif\0\0";

/// Whether these bytes are a JPEG's.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// Whether a JPEG's end marker follows its first scan. (A thumbnail inside the metadata has an end marker of its own,
/// hence the walk over the segments; inside a scan a byte 0xff is always followed by 0 or a restart marker.)
pub(super) fn has_end(bytes: &[u8]) -> bool {
    let mut position = 2;
    loop {
        // Anything between segments is skipped up to the next marker, as decoders do.
        match bytes
            .get(position..)
            .and_then(|rest| rest.iter().position(|&byte| byte == 0xff))
        {
            Some(offset) => position += offset + 1,
            None => return false,
        }
        let Some(&marker) = bytes.get(position) else {
            return false;
        };
        match marker {
            0xff | 0x00 | 0x01 | 0xd0..=0xd8 => {}
            0xd9 => return true,
            0xda => break,
            _ => match bytes.get(position + 1..position + 3) {
                Some(length) => position += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
                None => return false,
            },
        }
    }
    // From behind: that is where it stands in a whole file.
    bytes[position..].windows(2).rev().any(|pair| pair == [0xff, 0xd9])
}

/// The number of scans, those of thumbnails in the metadata included. (In a scan 0xff is followed by 0, so that nothing
/// in it is counted.)
fn scans(bytes: &[u8]) -> usize {
    bytes.windows(2).filter(|pair| *pair == [0xff, 0xda]).count()
}

/// The eighths of its size at which a JPEG is decoded so that its short side keeps `short_side` pixels (0: all of them).
fn eighths(short: usize, short_side: u32) -> u8 {
    let enough = |eighths: &u8| short_side > 0 && (short * usize::from(*eighths)).div_ceil(8) >= short_side as usize;
    [1, 2, 4].into_iter().find(enough).unwrap_or(8)
}

/// Decodes a JPEG whose size `check` accepts; `None` for the rare colour spaces that are left to the general decoder.
///
/// `short_side` as in [`Decoding::jpeg_short_side`](super::Decoding::jpeg_short_side).
///
/// # Errors
/// Those of `check`, and what the decoder says, in the words of `broken`.
pub(super) fn decode<E>(
    bytes: &[u8],
    short_side: u32,
    check: impl FnOnce(u32, u32) -> Result<(), E>,
    broken: impl Fn(String) -> E,
) -> Result<Option<RgbImage>, E> {
    let failed = |problem: String| broken(format!("cannot be decoded: {problem}"));
    let scans = scans(bytes);
    if scans > MOST_SCANS {
        return Err(failed(format!("the JPEG has {scans} scans, more than {MOST_SCANS}")));
    }
    let mut opened = guarded(|| Decompress::with_markers(&[Marker::APP(1)]).from_mem(bytes)).map_err(failed)?;
    if !matches!(
        opened.color_space(),
        ColorSpace::JCS_GRAYSCALE | ColorSpace::JCS_YCbCr | ColorSpace::JCS_RGB
    ) {
        return Ok(None);
    }
    let (Ok(columns), Ok(rows)) = (u32::try_from(opened.width()), u32::try_from(opened.height())) else {
        return Ok(None);
    };
    check(columns, rows)?;
    // Damaged metadata is no reason to refuse good pixels.
    let orientation = opened
        .markers()
        .filter_map(|marker| marker.data.strip_prefix(EXIF))
        .find_map(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms);
    opened.scale(eighths(opened.width().min(opened.height()), short_side));
    let decoded = guarded(move || {
        let mut started = opened.rgb()?;
        // Never wider than the file's own size, which fits.
        let (columns, rows) = (started.width() as u32, started.height() as u32);
        let pixels = started.read_scanlines::<u8>()?;
        started.finish()?;
        Ok(RgbImage::from_raw(columns, rows, pixels))
    });
    let Some(stored) = decoded.map_err(failed)? else {
        return Ok(None);
    };
    if orientation == Orientation::NoTransforms {
        return Ok(Some(stored));
    }
    let mut image = DynamicImage::ImageRgb8(stored);
    image.apply_orientation(orientation);
    Ok(Some(image.into_rgb8()))
}

/// Runs a part of the decoder, which reports a file it cannot read by unwinding.
fn guarded<T>(part: impl FnOnce() -> std::io::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(part)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => Err(message(&*payload)),
    }
}

/// What the decoder says in its payload, without the words that every message begins with.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("the decoder failed on its content");
    text.strip_prefix("libjpeg fatal error: ").unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat};

    use super::*;

    fn encode(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    }

    fn pixels(bytes: &[u8]) -> RgbImage {
        let decoded = decode(bytes, 0, |_, _| Ok::<(), String>(()), |problem| problem).unwrap();
        decoded.expect("a usual colour space")
    }

    #[test]
    fn the_pixels_are_those_of_pillow() {
        macro_rules! fixture {
            ($name:literal) => {
                (
                    include_bytes!(concat!("../../../tests/images/", $name, ".jpg")).as_slice(),
                    include_bytes!(concat!("../../../tests/images/", $name, ".png")).as_slice(),
                )
            };
        }
        // Made by tools/golden/make_images.py: the ways in which photographs are stored.
        for (jpeg, pillow) in [
            fixture!("progressive_420"),
            fixture!("baseline_422"),
            fixture!("baseline_444_restart"),
            fixture!("grey"),
        ] {
            let pillow = image::load_from_memory_with_format(pillow, ImageFormat::Png)
                .unwrap()
                .into_rgb8();
            assert!(pixels(jpeg) == pillow);
        }
    }

    #[test]
    fn every_size_is_close_to_the_general_decoder() {
        for (width, height) in [(1, 1), (7, 5), (16, 16), (33, 100), (250, 131)] {
            let picture = RgbImage::from_fn(width, height, |x, y| {
                image::Rgb([x + y, 2 * y, 255 - y].map(|value| value.min(255) as u8))
            });
            for image in [
                DynamicImage::ImageRgb8(picture.clone()),
                DynamicImage::ImageLuma8(DynamicImage::ImageRgb8(picture).into_luma8()),
            ] {
                let bytes = encode(&image);
                let own = pixels(&bytes);
                let general = image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg)
                    .unwrap()
                    .into_rgb8();
                assert_eq!(own.dimensions(), general.dimensions());
                let furthest = own
                    .iter()
                    .zip(general.iter())
                    .map(|(own, general)| own.abs_diff(*general))
                    .max();
                assert!(
                    furthest <= Some(6),
                    "{width} x {height} {:?}: {furthest:?}",
                    image.color()
                );
            }
        }
    }

    #[test]
    fn a_reduced_picture_keeps_its_short_side_and_its_colours() {
        let picture = RgbImage::from_fn(640, 401, |x, y| image::Rgb([(x / 3) as u8, (y / 2) as u8, 100]));
        let bytes = encode(&DynamicImage::ImageRgb8(picture));
        let reduced = |short_side| {
            decode(&bytes, short_side, |_, _| Ok::<(), String>(()), |problem| problem)
                .unwrap()
                .unwrap()
        };
        for (short_side, size) in [
            (0, (640, 401)),
            (1, (80, 51)),
            (51, (80, 51)),
            (52, (160, 101)),
            (102, (320, 201)),
            (201, (320, 201)),
            (202, (640, 401)),
            (5000, (640, 401)),
        ] {
            let image = reduced(short_side);
            assert_eq!(image.dimensions(), size, "{short_side}");
            // In the middle of the picture, where 8 x 8 pixels are one of the smallest.
            let (x, y) = (image.width() / 2, image.height() / 2);
            for (value, expected) in image.get_pixel(x, y).0.into_iter().zip([106_u8, 100, 100]) {
                assert!(
                    value.abs_diff(expected) <= 6,
                    "{short_side}: {value} instead of {expected}"
                );
            }
        }
    }

    #[test]
    fn cmyk_is_left_to_the_general_decoder() {
        let bytes = include_bytes!("../../../tests/images/cmyk.jpg");
        assert_eq!(
            decode(bytes, 0, |_, _| Ok::<(), String>(()), |problem| problem),
            Ok(None)
        );
    }

    #[test]
    fn a_file_of_thousands_of_scans_is_refused() {
        let mut bytes = encode(&DynamicImage::ImageRgb8(RgbImage::new(32, 32)));
        let end = bytes.split_off(bytes.len() - 2);
        for _ in 0..MOST_SCANS {
            bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
        }
        bytes.extend(end);
        let refused = decode(&bytes, 0, |_, _| Ok::<(), String>(()), |problem| problem).unwrap_err();
        assert!(refused.contains("501 scans, more than 500"), "{refused}");
    }

    #[test]
    fn what_the_decoder_says_is_told() {
        let mut bytes = encode(&DynamicImage::ImageRgb8(RgbImage::new(32, 32)));
        // A table of quantisers that the picture asks for is given another number.
        let table = bytes.windows(2).position(|pair| pair == [0xff, 0xdb]).unwrap();
        bytes[table + 4] = 3;
        let said = decode(&bytes, 0, |_, _| Ok::<(), String>(()), |problem| problem).unwrap_err();
        assert!(said.contains("Quantization table"), "{said}");
    }

    #[test]
    fn the_end_marker_of_a_thumbnail_does_not_count() {
        let jpeg = encode(&DynamicImage::ImageRgb8(RgbImage::new(32, 32)));
        let thumbnail = [0xff, 0xe1, 0, 8, 1, 2, 0xff, 0xd9, 3, 4];
        let whole = [&jpeg[..2], &thumbnail, &jpeg[2..]].concat();
        assert!(has_end(&whole));
        assert!(!has_end(&whole[..whole.len() - 2]));
    }

    #[test]
    fn a_refused_size_is_not_decoded() {
        let jpeg = encode(&DynamicImage::ImageRgb8(RgbImage::new(32, 8)));
        let refuse = |width, height| Err(format!("{width} x {height}"));
        assert_eq!(decode(&jpeg, 0, refuse, |problem| problem), Err("32 x 8".to_owned()));
    }
}
