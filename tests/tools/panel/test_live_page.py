"""What the live page shows of the past, the learner and the robot's numbers, and what it offers in each state."""

import re

import pytest
from browsing import by_browser, until
from link_data import PROGRESS

from agent.spec import UserError
from robot_server.history import LIMITS
from tools.panel import __main__ as command
from tools.panel import addresses

PIXELS = """place => {
  const canvas = document.querySelector(`${place} canvas`), {width, height} = canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  let painted = 0;
  for (let at = 3; at < pixels.length; at += 4) painted += pixels[at] > 0;
  return painted;
}"""


def lines(page, shown=""):
    """Of the event log, without their times; the newest first."""
    return page.locator(f"#log li{shown} span").all_text_contents()


def play(arm, outcomes, first=0):
    for number, outcome in enumerate(outcomes, first):
        arm.control.history.episode(number, outcome, 41, 6 * (number % 2), 1.0 * (outcome == "success"))


@by_browser
def test_episodes_are_a_success_rate_and_lines_and_survive_a_reload(arm, page):
    assert page.locator("#success-card").is_hidden() and page.locator("#learner-card").is_hidden()
    play(arm, ["success", "failure", "discarded", "success"])
    page.wait_for_selector("#success-words:has-text('last 3: 67 % (95 % interval 21 to 94 %), of all 3: 2')")
    shown = [
        "episode 3: success, 41 steps, return 1, 6 by hand",
        "episode 2: discarded, 41 steps, return 0",
        "episode 1: failure, 41 steps, return 0, 6 by hand",
        "episode 0: success, 41 steps, return 1",
    ]
    assert lines(page) == shown
    assert page.evaluate(PIXELS, "#success") > 500
    page.reload()
    until(lambda: lines(page) == shown)
    play(arm, ["failure"] * 20, first=4)  # the rate is of the last 20
    page.wait_for_selector("#success-words:has-text('last 20: 0 % (95 % interval 0 to 16 %), of all 23: 2')")
    columns = page.evaluate("successPlot.data.map((column) => column.at(-1))")
    assert columns[0] == 24 and columns[3] == 0 and columns[5] == 0 and columns[4] is columns[6] is None


@by_browser
def test_the_offline_level_is_a_line_where_it_is_known(arm, start_panel, chromium):
    page = chromium()[1].contexts[0].new_page()
    page.goto(start_panel(arm.control.address, "--offline-success", "0.62"))
    play(arm, ["success"])
    page.wait_for_selector("#success-words:has-text('offline policy: 62 %')")
    assert page.evaluate("successPlot.data.at(-1)") == [0.62]


@pytest.mark.parametrize("rate", ["1.5", "-1", "nan", "much"])
def test_an_impossible_offline_level_is_refused(rate):
    with pytest.raises(UserError, match="a success rate is between 0 and 1"):
        command.main([f"--offline-success={rate}"])


@by_browser
def test_events_are_filtered_and_never_markup(arm, page):
    history = arm.control.history
    history.event("link", "<img src=x onerror='document.title=1'><b>the connection is lost</b>", warning=True)
    history.event("drive", "a person drives")
    history.event("drive", "the policy acts again")
    page.keyboard.press("Escape")
    until(lambda: lines(page)[:1] == ["STOP pressed"])
    assert lines(page)[-1].startswith("<img src=x") and page.locator("#log img, #log b").count() == 0
    assert lines(page, ".warning") == ["STOP pressed", lines(page)[-1]]
    page.click("#log-kinds >> text=Stops")
    page.click("#log-kinds >> text=Link")
    seen = page.locator("#log li:visible span").all_text_contents()
    assert seen == ["the policy acts again", "a person drives"]
    history.event("stop", "released")
    until(lambda: lines(page)[0] == "released")
    assert page.locator("#log li:visible span").all_text_contents() == seen  # what is filtered stays so
    page.click("#log-kinds >> text=Stops")
    assert page.locator("#log li:visible span").first.text_content() == "released"


@by_browser
def test_a_history_that_is_full_is_shown_and_bounded(arm, page):
    play(arm, ["success", "failure"] * (LIMITS["episode"] // 2 + 50))
    for number in range(LIMITS["event"] + 50):
        arm.control.history.event("log", f"line {number}")
    until(lambda: lines(page)[:1] == [f"line {LIMITS['event'] + 49}"])
    assert page.locator("#log li").count() == LIMITS["event"]
    assert page.evaluate("past.episode.length") == LIMITS["episode"]


@by_browser
def test_a_restarted_robot_server_has_a_past_of_its_own(arm, page):
    play(arm, ["success"] * 3)
    until(lambda: len(lines(page)) == 3)
    arm.control.history = type(arm.control.history)()
    play(arm, ["failure"])
    until(lambda: lines(page) == ["episode 0: failure, 41 steps, return 0"])


@by_browser
def test_the_learner_is_on_the_page(arm, page):
    history = arm.control.history
    for updates in range(100, 600, 100):
        figures = {"updates": updates, "q_data": updates / 1000, "return_to_go": 0.4, "td_loss": 0.1, "entropy": -2.0}
        told = {**PROGRESS, "figures": figures, "updates": updates, "updates_due": 590, "seconds_left": 4000.0}
        history.learner_told({**told, "warnings": ["at 40 env steps: <b>Q</b> is far"], "newest_episode": {}})
    page.wait_for_selector("#learner dd:has-text('500, 90 more due')")
    facts = page.inner_text("#learner")
    assert all(words in facts for words in ("online", "500 of 2,000, 1,500 left", "67 min", "none yet"))
    assert page.inner_text("#learner-warnings") == "at 40 env steps: <b>Q</b> is far"
    until(lambda: page.locator("#learner-plots .plot").count() == 3)  # no actor loss was told
    told = page.locator("#learner-plots .plot").first.get_attribute("aria-label")
    assert told == "Q and return over updates, now Q 0.5, return 0.4"
    assert page.evaluate(PIXELS, "#learner-plots .plot") > 500
    history.learner_told({**PROGRESS, "stage": "finished", "checkpoint_age_s": 200.0})
    page.wait_for_selector("#learner dd:has-text('finished')")
    assert "3 min ago" in page.inner_text("#learner") and "to the end" not in page.inner_text("#learner")


@by_browser
def test_q_along_the_newest_episode_is_drawn_beside_its_return(arm, page):
    history = arm.control.history
    history.learner_told({**PROGRESS, "newest_episode": {}})
    page.wait_for_selector("#learner-card")
    assert page.locator("#newest").is_hidden()
    history.learner_told(PROGRESS)
    page.wait_for_selector("#newest-title:has-text('Q along episode 12')")
    words = "Success; critics after 120 updates. Means: Q of the action 0.625, Q of the policy's 0.75, return 0.583."
    assert page.inner_text("#newest-words") == words
    assert page.evaluate("newestPlot.data") == [[0, 20, 40], [0.5, 0.625, 0.75], [0.5, 0.75, 1], [0.25, 0.5, 1]]
    until(lambda: page.evaluate(PIXELS, "#newest-plot") > 500)
    failed = {"number": 13, "updates": 190, "success": False, "steps": [0]}
    curves = {"recorded_action": [-2.0], "policy_action": [-1.0], "return_to_go": [-10.0]}
    history.learner_told({**PROGRESS, "newest_episode": {**failed, **curves}})
    page.wait_for_selector("#newest-words:has-text('Failure; critics after 190 updates')")


@by_browser
def test_numbers_have_their_names(arm, page):
    arm.control.history.name(
        {"action": ["x", "y", "z", "rx", "ry", "rz", "gripper"], "state": ["ee_pos.x", "<b>y</b>"]}
    )
    page.click("text=State")
    row = "#vectors tr:has(th:text-is('state: {}')) td >> nth=0"
    until(lambda: page.locator(row.format("<b>y</b>")).count() and page.inner_text(row.format("<b>y</b>")) == "0.5")
    before = page.inner_text(row.format("ee_pos.x"))
    until(lambda: page.inner_text(row.format("ee_pos.x")) != before)
    assert page.inner_text("#vectors tr:has(th:text-is('action: gripper')) td >> nth=0") == "1"
    until(lambda: page.evaluate(PIXELS, "#vectors tr:has(th)") > 10)  # its line grows with the seconds


@by_browser
def test_cameras_fill_the_window_and_one_is_enlarged(arm, page):
    def widths():
        return [round(one.bounding_box()["width"]) for one in page.locator("#cameras figure:visible").all()]

    until(lambda: len(set(widths())) == 1 and widths()[0] > 300)
    before = widths()
    page.click("#cameras figure >> nth=1")
    until(lambda: len(widths()) == 1 and widths()[0] > before[1])
    large = widths()
    assert page.evaluate("document.activeElement === document.body")  # Space stays the gripper's
    page.set_viewport_size({"width": 900, "height": 500})
    until(lambda: widths()[0] < large[0])
    page.click("#cameras figure >> nth=1")
    until(lambda: len(widths()) == 2 and len(set(widths())) == 1)


@by_browser
def test_every_state_says_its_way_out(arm, page):
    way = "#way:has-text('{}')".format
    page.wait_for_selector(way("Take over (T) to drive. Pause (P) holds"))
    arm.control.latch_pause("Put the cube back")
    page.wait_for_selector(way("Put the cube back. Then Resume (P)."))
    page.wait_for_timeout(800)
    page.keyboard.press("p")
    until(lambda: not arm.control.paused)
    page.keyboard.press("t")
    page.wait_for_selector(way("You drive. Give back (T)"))
    assert page.locator("#resume").is_hidden()
    page.evaluate("letGo()")  # as a page that is hidden: it says nothing more
    page.wait_for_selector(way("Take over (T) to drive on, or Resume"))
    page.click("#resume")
    until(lambda: arm.control.state()["driven"] == "")
    page.keyboard.press("Escape")
    page.wait_for_selector(way("hold Release below for a second"))
    assert page.locator("#resume").is_hidden() and arm.control.stopped


@by_browser
def test_a_robot_that_no_page_can_move_is_not_offered(arm, page):
    page.wait_for_selector("#take:enabled")
    arm.control.drivable = False
    page.wait_for_selector("#take:disabled")
    assert page.locator(".pads").is_hidden() and "A leader arm can" in page.inner_text("#driving")
    page.keyboard.press("t")
    page.wait_for_timeout(300)
    assert not arm.command.enabled


@by_browser
def test_the_task_is_beside_the_verdicts_in_words(arm, page):
    page.wait_for_selector("#judging:visible")
    assert page.locator("#task").is_hidden()
    arm.control.task = "put the <b>cube</b> back"
    page.wait_for_selector("#judging #task:text-is('Task: put the <b>cube</b> back')")


@by_browser
def test_keys_that_move_nothing_are_neither_listed_nor_sent(arm, page):
    arm.control.layout = (0, 1)
    page.wait_for_selector("#pad-z", state="hidden")
    page.click("text=Keys")
    listed = page.inner_text(".keys")
    assert "away, back" in listed and not re.search(r"up, down|turn|pitch|roll|gripper", listed)
    page.keyboard.press("t")
    page.keyboard.down("r")
    page.keyboard.down("w")
    arm.moves(0.5, 0, 0, 0, 0, 0)


@by_browser
def test_commands_that_come_too_late_say_by_how_much(arm, page):
    page.keyboard.press("t")
    until(lambda: arm.command.enabled)
    page.evaluate("const held = socket.send.bind(socket); socket.send = (text) => setTimeout(() => held(text), 400); 0")
    page.wait_for_selector("#alert:has-text('your commands arrive too late to drive by')")
    assert int(re.search(r"by: (\d+) ms, 200 ms at most", page.inner_text("#alert"))[1]) >= 400


@by_browser
def test_a_recording_is_started_not_taken_over(arm, page):
    arm.control.about = lambda: {"kept": 1, "asked": 5}
    page.wait_for_selector("#take:has-text('Start driving')")


SIZES = {"portrait": (390, 844), "landscape": (844, 390)}


@by_browser
@pytest.mark.parametrize("way", SIZES)
def test_on_a_phone_nothing_covers_what_is_needed(arm, folder, start_panel, chromium, way):
    width, height = SIZES[way]
    arm.control.layout = (0, 1, 2, 5, 6)
    viewport = {"width": width, "height": height}
    context = chromium()[1].new_context(viewport=viewport, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = context.new_page()
    page.goto(start_panel(arm.control.address, "--episodes", str(folder)))
    page.wait_for_selector("#cameras canvas", timeout=60_000)
    page.wait_for_selector("#pad-tip", state="hidden")
    page.wait_for_selector("#to-recorded:visible")
    assert page.inner_text("#way") == "Take over to drive. Pause holds the arm between two steps."  # it has no keys
    assert page.evaluate("['what', 'way'].every((id) => $(id).scrollWidth <= $(id).clientWidth + 1)")
    assert page.evaluate("$('way').scrollHeight <= $('way').clientHeight + 1")
    box = {name: page.locator(name).bounding_box() for name in ("header", "#cameras", "#stop", "#pad-xy", "#pad-z")}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert box["#cameras"]["y"] >= box["header"]["y"] + box["header"]["height"] - 1
    for pad in ("#pad-xy", "#pad-z"):
        at = box[pad]
        assert at["width"] >= 120 and at["x"] >= 0 and at["x"] + at["width"] <= width
        assert at["y"] >= box["header"]["height"] and at["y"] + at["height"] <= height
    if way == "landscape":
        assert box["#pad-xy"]["x"] < width / 4 and box["#pad-z"]["x"] > width / 2
        for word in page.locator("#words button").all():
            assert word.bounding_box()["y"] + word.bounding_box()["height"] <= height
    else:
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(300)
        below = page.locator("#cameras").bounding_box()["y"] - box["header"]["height"]
        assert page.evaluate("scrollY") > 100 and abs(below) < 8  # in view above the pads
    context.close()


@by_browser
def test_discard_is_not_beside_pause(page):
    pause, discard = (page.locator(f"#words [data-event={name}]").bounding_box() for name in ("pause", "discard"))
    assert discard["x"] > pause["x"] + pause["width"] or discard["y"] > pause["y"] + 2 * pause["height"]


def test_the_addresses_are_this_computers_own():
    assert addresses.reachable("192.168.1.7") == ["192.168.1.7"] and addresses.reachable("::1") == ["[::1]"]
    found = addresses.reachable("0.0.0.0")
    assert found and len(found) == len(set(found)) and "0.0.0.0" not in found and "127.0.0.1" not in found
    assert all(each.startswith("[") or "." in each or each for each in addresses.reachable("::"))


def test_a_qr_code_holds_the_address_with_its_token():
    segno = pytest.importorskip("segno")
    url = "http://192.168.1.7:8080/?token=" + "x" * 22
    drawn = addresses.qr_code(url)
    assert len(drawn.splitlines()) < 30 and drawn.count("\n") > 10
    assert segno.make_qr(url, error="l").symbol_size()[0] < 60  # of a terminal's 80 columns


@by_browser
def test_plots_are_drawn_where_the_browser_has_no_language(arm, start_panel, chromium):
    """WebKit's language is "C" on a computer without locales, and uPlot was lost by it."""
    page = chromium()[1].contexts[0].new_page()
    page.add_init_script("Object.defineProperty(navigator, 'language', {value: 'C', configurable: true})")
    page.goto(start_panel(arm.control.address))
    play(arm, ["success"])
    page.wait_for_selector("#success-words:has-text('last 1: 100 %')", timeout=60_000)
    assert page.evaluate(PIXELS, "#success") > 500
