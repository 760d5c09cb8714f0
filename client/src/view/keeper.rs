//! Keeps the conversation's view where it is: at the bottom, or with the topmost event in its place.
//!
//! It acts on the page directly and at once, from observers that run before anything is painted: Yew may
//! paint between changing the page and calling `rendered`. It must not know rooms or messages; rows that
//! stay where they are in the log carry `data-seq`.

use shared::model::Seq;
use web_sys::Element;

/// Nearer to the bottom than this, the view follows what comes, in CSS pixels.
const STICK_PX: f64 = 30.0;

/// A row and where its end stood below the top of the view. Its end, since the first row loses its heading
/// when the message before it comes in.
struct Anchor {
    row: Element,
    end: f64,
}

pub struct Keeper {
    /// What scrolls.
    scroller: Element,
    /// Its child, the parent of the rows.
    list: Element,
    /// Whether the rows have been placed for the first time.
    placed: bool,
    /// Whether the view follows the newest row.
    pub stuck: bool,
    /// The scroll position that was left by ourselves or last seen: another one means that the person moved.
    position: i32,
    anchor: Option<Anchor>,
}

impl Keeper {
    pub fn new(scroller: Element, list: Element) -> Self {
        Self { scroller, list, placed: false, stuck: true, position: 0, anchor: None }
    }

    /// Whether there are rows, in their place.
    pub fn is_placed(&self) -> bool {
        self.placed
    }

    /// The pixels between the start of the rows and the start of the view.
    pub fn above(&self) -> f64 {
        f64::from(self.scroller.scroll_top())
    }

    /// The pixels between the end of the view and the end of the rows.
    pub fn below(&self) -> f64 {
        f64::from(self.scroller.scroll_height() - self.scroller.client_height() - self.scroller.scroll_top())
    }

    /// The height of the view in pixels.
    pub fn height(&self) -> f64 {
        f64::from(self.scroller.client_height())
    }

    pub fn is_at_bottom(&self) -> bool {
        self.below() <= STICK_PX
    }

    /// Notes where the person has moved the view to. To be called before the rows change.
    pub fn look(&mut self) {
        if !self.placed {
            return;
        }
        let position = self.scroller.scroll_top();
        // Where nobody scrolled, rows that grow do not unstick the view, and the anchor stays the same one:
        // a page of rows may come in several steps.
        if position != self.position || self.is_at_bottom() {
            self.stuck = self.is_at_bottom();
            self.position = position;
            self.anchor = self.topmost();
        }
    }

    /// Puts the view back to where it was. To be called after anything changed its height or the rows'.
    pub fn hold(&mut self) {
        if !self.placed {
            self.place();
        } else if self.stuck {
            self.scroller.set_scroll_top(self.scroller.scroll_height());
        } else if let Some(anchor) = self.anchor.as_ref().filter(|anchor| anchor.row.is_connected()) {
            let moved = anchor.row.get_bounding_client_rect().bottom() - self.top() - anchor.end;
            // Less is rounding, and correcting it would creep.
            if moved.abs() >= 0.5 {
                self.scroller.scroll_by_with_x_and_y(0.0, moved);
            }
        }
        self.position = self.scroller.scroll_top();
        if self.stuck || self.anchor.as_ref().is_none_or(|anchor| !anchor.row.is_connected()) {
            self.anchor = self.topmost();
        }
    }

    /// Places the rows of a room that was just opened: the "new" line in sight, else the newest row.
    fn place(&mut self) {
        if self.list.child_element_count() <= 1 {
            return;
        }
        self.placed = true;
        self.scroller.set_scroll_top(self.scroller.scroll_height());
        if let Ok(Some(line)) = self.scroller.query_selector(".new-line") {
            let wanted = self.top() + self.height() / 5.0;
            let above = wanted - line.get_bounding_client_rect().top();
            if above > 0.0 {
                self.scroller.scroll_by_with_x_and_y(0.0, -above);
                self.stuck = self.is_at_bottom();
            }
        }
        // The style sheet hides the rows until then. It fails only for a bad name.
        let _ = self.scroller.set_attribute("data-placed", "");
    }

    fn top(&self) -> f64 {
        self.scroller.get_bounding_client_rect().top()
    }

    /// The number of the first row whose end is below a height on the screen; rows count from 1, since the
    /// first child is a note above them.
    fn first_below(&self, height: f64) -> Option<u32> {
        let rows = self.list.children();
        let (mut low, mut high) = (1, rows.length());
        while low < high {
            let middle = (low + high) / 2;
            if rows.item(middle)?.get_bounding_client_rect().bottom() > height {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Some(low)
    }

    /// The first event that is at least partly in view.
    fn topmost(&self) -> Option<Anchor> {
        let view = self.top();
        let rows = self.list.children();
        // A day's line moves up when more of the day comes in: only events stay where they are in the log.
        let row = (self.first_below(view)?..rows.length())
            .filter_map(|at| rows.item(at))
            .find(|row| row.has_attribute("data-seq"))?;
        let end = row.get_bounding_client_rect().bottom() - view;
        Some(Anchor { row, end })
    }

    /// `seq` of the last event whose end is in view.
    pub fn last_seen(&self) -> Option<Seq> {
        let end = self.scroller.get_bounding_client_rect().bottom() + 1.0;
        let rows = self.list.children();
        (1..self.first_below(end)?)
            .rev()
            .find_map(|at| rows.item(at)?.get_attribute("data-seq")?.parse().ok())
    }
}
