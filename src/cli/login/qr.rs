//! An address as a picture of blocks, for the camera of another device.

use qrcode::{Color, EcLevel, QrCode};

/// White around it, in modules. Four are asked for; two suffice for cameras and spare the screen.
const QUIET: usize = 2;

/// Black on white whatever the terminal's colours are: a camera wants it so.
const PAINT: &str = "\x1b[30;107m";
const PLAIN: &str = "\x1b[0m";

/// Returns the picture, one line for two rows of modules; `None` if `text` is too long, or the picture does not
/// fit into `rows` × `columns`.
pub(super) fn picture(text: &str, (rows, columns): (usize, usize)) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = code.width();
    let side = width + 2 * QUIET;
    if side > columns || side.div_ceil(2) > rows {
        return None;
    }
    let modules = code.to_colors();
    let is_dark = |x: usize, y: usize| {
        let inside = QUIET..QUIET + width;
        inside.contains(&x)
            && inside.contains(&y)
            && modules[(y - QUIET) * width + (x - QUIET)] == Color::Dark
    };
    let mut picture = String::new();
    for y in (0..side).step_by(2) {
        picture.push_str(PAINT);
        for x in 0..side {
            picture.push(match (is_dark(x, y), is_dark(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        picture.push_str(PLAIN);
        picture.push('\n');
    }
    Some(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_issuer_fits_beside_its_words() {
        let picture = picture("https://auth.openai.com/codex/device", (18, 40)).unwrap();
        let lines: Vec<&str> = picture.lines().collect();
        assert_eq!(lines.len(), 17);
        for line in &lines {
            let bare = line
                .strip_prefix(PAINT)
                .and_then(|l| l.strip_suffix(PLAIN))
                .unwrap();
            assert_eq!(bare.chars().count(), 33);
        }
        // The finder pattern at the top left: seven dark modules behind the margin.
        assert!(
            lines[1].starts_with(&format!("{PAINT}  █▀▀▀▀▀█")),
            "{picture}"
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        assert_eq!(
            picture("https://auth.openai.com/codex/device", (16, 80)),
            None
        );
        assert_eq!(
            picture("https://auth.openai.com/codex/device", (24, 32)),
            None
        );
        assert_eq!(picture(&"x".repeat(9999), (999, 999)), None);
    }
}
