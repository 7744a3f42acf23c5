//! Random changes of inputs: bits, bytes, numbers at their limits, pieces repeated, moved and taken from another input, tokens of
//! the language put in. Repeatable from its seed.

/// A source of changes.
pub struct Mutator<'a> {
    state: u64,
    tokens: &'a [&'static str],
}

impl<'a> Mutator<'a> {
    pub fn new(seed: u64, tokens: &'a [&'static str]) -> Self {
        Self {
            state: seed | 1,
            tokens,
        }
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`; 0 for 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap();
        usize::try_from(self.next() % limit).unwrap()
    }

    /// One of the inputs with one to eight changes.
    pub fn mutated(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input, pool);
        }
        input.truncate(65_536);
        input
    }

    fn piece(&mut self, of: &[u8]) -> Vec<u8> {
        let from = self.below(of.len());
        let length = self.below((of.len() - from).min(64)) + 1;
        of[from..of.len().min(from + length)].to_vec()
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(10) {
            0 if !input.is_empty() => {
                let place = at % input.len();
                input[place] ^= 1 << self.below(8);
            }
            1 if !input.is_empty() => {
                let place = at % input.len();
                input[place] = u8::try_from(self.below(256)).unwrap();
            }
            2 => {
                let piece = self.piece(input);
                let to = input.len().min(at + piece.len());
                input.drain(at..to);
            }
            3 => {
                let piece = self.piece(input);
                input.splice(at..at, piece);
            }
            // Deep nesting and long runs.
            4 => {
                let piece = self.piece(input);
                let times = 1 << self.below(9);
                input.splice(at..at, piece.repeat(times));
            }
            5 => {
                let other = &pool[self.below(pool.len())];
                let piece = self.piece(other);
                input.splice(at..at, piece);
            }
            6 => input.truncate(at),
            7 => {
                const NUMBERS: [&str; 8] = [
                    "0",
                    "-1",
                    "255",
                    "65536",
                    "2147483648",
                    "9223372036854775808",
                    "1e400",
                    "0.1",
                ];
                let number = NUMBERS[self.below(NUMBERS.len())];
                let digits = input[at..].iter().take_while(|byte| byte.is_ascii_digit());
                let end = at + digits.count();
                input.splice(at..end, number.bytes());
            }
            _ => {
                let token = self.tokens[self.below(self.tokens.len())];
                input.splice(at..at, token.bytes());
            }
        }
    }
}
