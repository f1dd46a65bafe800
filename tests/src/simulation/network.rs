//! The way between a device and the relay.

use std::collections::VecDeque;

use crate::random::Random;

/// One connection: frames on their way, and what happens to them.
#[derive(Default)]
pub(super) struct Link {
    /// The relay's session at the other end.
    pub(super) session: u64,
    pub(super) up: VecDeque<Vec<u8>>,
    pub(super) down: VecDeque<Vec<u8>>,
    /// Nothing arrives at the relay any more, or nothing at the device.
    pub(super) deaf_up: bool,
    pub(super) deaf_down: bool,
    /// The device takes nothing for a while, and the relay cannot send it more.
    pub(super) is_stalled: bool,
}

/// How often frames come to harm, of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Harm(pub(super) u64);

impl Harm {
    /// Takes the next frame of a queue, as it arrives; `None` if it does not.
    pub(super) fn next(self, queue: &mut VecDeque<Vec<u8>>, random: &mut Random) -> Option<Vec<u8>> {
        let mut frame = queue.pop_front()?;
        if random.below(1_000) >= self.0 {
            return Some(frame);
        }
        match random.below(5) {
            0 => return None,
            1 => queue.push_front(frame.clone()),
            2 => {
                if let Some(next) = queue.pop_front() {
                    queue.push_front(frame);
                    return Some(next);
                }
            }
            3 => frame.truncate(random.below(frame.len() as u64) as usize),
            _ => {
                let at = random.below(frame.len() as u64) as usize;
                frame[at] ^= 1 << random.below(8);
            }
        }
        Some(frame)
    }
}
