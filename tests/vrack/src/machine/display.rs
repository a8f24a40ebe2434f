//! What a person in front of the machine sees and types: a VGA display in text mode and a PS/2 keyboard, without a window.

use std::io;

use serde_json::json;

use super::Machine;

/// Where a VGA adapter's text is in memory, and how much of it a display in text mode uses: rows of 80 characters, each with
/// its attributes behind it.
const TEXT: u64 = 0xb_8000;
const SIZE: u64 = 32 << 10;
const ROW: usize = 2 * 80;

impl Machine {
    /// The rows of text in the memory of its display, top first, those that are empty left out; what is not ASCII is a dot. It
    /// holds more than the screen shows: also rows that were scrolled out of it. With a framebuffer in place of text it is
    /// rubbish.
    ///
    /// # Errors
    /// When the machine is off or has no display.
    pub async fn text_screen(&self) -> io::Result<String> {
        let qmp = self.with_display().await?;
        let path = self.inner.config.path("vga");
        let place = json!({ "val": TEXT, "size": SIZE, "filename": path });
        qmp.execute("pmemsave", place).await?;
        Ok(rows(&std::fs::read(&path)?))
    }

    /// Presses a key of its keyboard and lets it go, by QEMU's name for it (`QKeyCode`): `l`, `ret`, `pgup`.
    ///
    /// # Errors
    /// When the machine is off or has no display, or QEMU knows no such key.
    pub async fn press(&self, key: &str) -> io::Result<()> {
        let qmp = self.with_display().await?;
        let keys = json!({ "keys": [{ "type": "qcode", "data": key }] });
        qmp.execute("send-key", keys).await.map(drop)
    }

    async fn with_display(&self) -> io::Result<std::sync::Arc<crate::qmp::Qmp>> {
        let name = &self.inner.config.name;
        if !self.inner.config.display {
            return Err(io::Error::other(format!("{name} has no display")));
        }
        let qmp = self.qmp().await;
        qmp.ok_or_else(|| io::Error::other(format!("{name} is off and its display dark")))
    }
}

fn rows(memory: &[u8]) -> String {
    let row = |cells: &[u8]| -> String {
        let characters = cells.iter().step_by(2).map(|code| match code {
            0 | b' ' => ' ',
            0x21..=0x7e => char::from(*code),
            _ => '.',
        });
        characters.collect::<String>().trim_end().to_owned()
    };
    let rows: Vec<String> = memory.chunks(ROW).map(row).filter(|row| !row.is_empty()).collect();
    rows.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_without_attributes_and_frames() {
        let mut memory = vec![0; 3 * ROW];
        for (at, code) in b"\xc4 Log: kernel".iter().enumerate() {
            memory[2 * ROW + 2 * at] = *code;
            memory[2 * ROW + 2 * at + 1] = 7;
        }
        memory[0] = b'a';
        assert_eq!(rows(&memory), "a\n. Log: kernel");
        assert_eq!(rows(&[]), "");
    }
}
