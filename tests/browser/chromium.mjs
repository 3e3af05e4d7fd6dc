// Opens reports in the real Chromium and tells, as JSON on stdout, what it saw.
//
// stdin: {"command": NAME, "pages": {NAME: PATH, …}, …}; the commands are below.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf-8");
const AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

// As root in a container; nothing that phones home.
const ARGUMENTS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ARGUMENTS,
});

/* A page that answers no request but the file's own, and notes whatever it says or asks for. */
async function open(path, options = {}, anchor = "") {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const url = pathToFileURL(path).href;
  const seen = { console: [], requests: [] };
  page.on("console", (message) => seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(String(error)));
  await page.route("**/*", (route) => {
    if (route.request().url().split("#")[0] === url) return route.continue();
    seen.requests.push(route.request().url());
    return route.abort();
  });
  await page.goto(url + anchor);
  return { page, seen };
}

/* Waits in the page until what changed has been painted. */
const painted = () =>
  new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));

/* The numbers of the rows on the screen, once the script has placed them all. */
const visibleRows = async (page) => {
  await page.waitForFunction(
    () => document.getElementById("inventory").getAttribute("aria-busy") === "false",
  );
  return page.$$eval("#inventory tbody tr", (rows) =>
    rows.filter((row) => row.getClientRects().length).map((row) => row.cells[0].textContent),
  );
};

const commands = {
  /* axe in both colour schemes, console and requests, per page. */
  async inspect({ pages }) {
    const found = {};
    for (const [name, path] of Object.entries(pages)) {
      for (const colorScheme of ["light", "dark"]) {
        for (const width of [1280, 390]) {
          const { page, seen } = await open(path, { colorScheme, viewport: { width, height: 900 } });
          await page.evaluate(AXE);
          const { violations } = await page.evaluate(
            (values) => globalThis.axe.run({ runOnly: { type: "tag", values } }),
            AXE_TAGS,
          );
          found[`${name} ${colorScheme} ${width}`] = {
            ...seen,
            violations: violations.map(
              ({ id, help, nodes }) => `${id}: ${help}: ${nodes.length} × ${nodes[0].html}`,
            ),
            ground: await page.evaluate(() => getComputedStyle(document.body).backgroundColor),
            spills: await page.evaluate(
              () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
            ),
          };
          await page.context().close();
        }
      }
    }
    return found;
  },

  /* Milliseconds from each keystroke's input event to the paint after it, and of each sort. */
  async keystrokes({ pages: { big }, texts }) {
    const { page, seen } = await open(big);
    await page.evaluate(() => {
      globalThis.waits = [];
      const note = (event) => {
        const begun = event.timeStamp;
        requestAnimationFrame(() => {
          const channel = new MessageChannel();
          channel.port1.onmessage = () => globalThis.waits.push(performance.now() - begun);
          channel.port2.postMessage(0);
        });
      };
      addEventListener("input", note, true);
      addEventListener("click", note, true);
    });
    const take = () => page.evaluate(() => globalThis.waits.splice(0));
    const answers = [];
    for (const text of texts) {
      await page.focus("#search");
      for (const letter of text) {
        await page.keyboard.press(letter);
        await page.evaluate(painted);
      }
      answers.push([text, await page.textContent("#shown")]);
      for (let left = text.length; left; left -= 1) {
        await page.keyboard.press("Backspace");
        await page.evaluate(painted);
      }
    }
    const typing = await take();
    for (const button of await page.$$("#inventory thead button")) {
      await button.focus();
      await page.keyboard.press("Enter");
      await page.evaluate(painted);
      await page.keyboard.press("Enter");
      await page.evaluate(painted);
    }
    return { typing, sorting: await take(), answers, ...seen };
  },

  /* The inventory worked by keyboard alone. */
  async work({ pages: { small, big }, name }) {
    const { page, seen } = await open(small);
    const told = { all: await visibleRows(page) };
    await page.focus("#search");
    await page.keyboard.type(name);
    told.searched = [await visibleRows(page), await page.textContent("#shown")];
    await page.focus("#clear");
    await page.keyboard.press("Enter");
    told.cleared = await visibleRows(page);
    for (const id of ["category", "party", "set", "review", "finding"]) {
      const options = await page.$$eval(`#by-${id} option`, (all) => all.map((one) => one.value));
      told[id] = {};
      for (const value of options.slice(1)) {
        await page.selectOption(`#by-${id}`, value);
        told[id][value] = await visibleRows(page);
      }
      await page.selectOption(`#by-${id}`, "");
    }
    told.sorts = [];
    for (const place of [7, 8, 1]) {
      const head = page.locator("#inventory thead th").nth(place);
      await head.locator("button").focus();
      for (const key of ["Enter", "Space"]) {
        await page.keyboard.press(key);
        told.sorts.push([place, await head.getAttribute("aria-sort"), await visibleRows(page)]);
      }
    }
    told.heads = await page.locator("#inventory thead th[aria-sort]").count();
    await page.keyboard.press("Tab");
    told.focus = await page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return [document.activeElement.tagName, outlineStyle, outlineWidth];
    });
    await page.evaluate(() => document.activeElement.blur());
    await page.reload();
    await page.keyboard.press("Tab");
    told.skip = await page.evaluate(() => document.activeElement.className);
    await page.keyboard.press("Enter");
    told.skipped = await page.evaluate(() => location.hash);
    told.broken = await page.$$eval("a[href^='#']", (links) =>
      links.map((link) => link.hash).filter((hash) => !document.getElementById(hash.slice(1))),
    );
    const paged = (await open(big, {}, "#c4321")).page;
    told.linked = await paged.locator("#c4321").isVisible();
    await paged.locator("#search").fill("zzzz");
    told.none = await visibleRows(paged);
    await paged.evaluate(() => (location.hash = "#c17"));
    await paged.waitForFunction(() => document.querySelector("#c17").getClientRects().length);
    told.revealed = await paged.inputValue("#search");
    return { ...told, ...seen };
  },

  /* Without script, on paper, and against a script that is not ours. */
  async endure({ pages: { small, big }, folder }) {
    const plain = (await open(big, { javaScriptEnabled: false })).page;
    const told = {
      plain: await plain.locator("#inventory tbody tr:visible").count(),
      tools: await plain.locator("#tools").isVisible(),
    };
    const { page, seen } = await open(small);
    told.before = [...seen.console];
    await page.evaluate(() => {
      const script = document.createElement("script");
      script.textContent = "globalThis.harmed = true";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", '<img src="https://example.org/x.png" onerror="globalThis.harmed = true">');
      document.body.insertAdjacentHTML("beforeend", '<p id="styled" style="position: fixed">x</p>');
    });
    await page.waitForTimeout(200);
    told.harmed = await page.evaluate(() => globalThis.harmed === true);
    told.styled = await page.evaluate(() => getComputedStyle(document.getElementById("styled")).position);
    told.said = seen.console;
    told.asked = seen.requests;
    for (const [name, path] of Object.entries({ small, big })) {
      const paper = (await open(path, { colorScheme: "dark" })).page;
      await paper.pdf({ path: `${folder}/${name}.pdf`, preferCSSPageSize: true, printBackground: false });
      if (name === "small") {
        const row = paper.locator("#inventory tbody tr").first();
        await paper.locator("#search").fill((await row.locator("th").textContent()).trim());
        told.matching = (await visibleRows(paper)).length;
        await paper.pdf({ path: `${folder}/searched.pdf`, preferCSSPageSize: true });
        await paper.locator("#search").fill("");
        told.after = (await visibleRows(paper)).length;
      }
    }
    return told;
  },

  /* Pictures for a person to look at. */
  async picture({ pages, folder }) {
    for (const [name, path] of Object.entries(pages)) {
      for (const colorScheme of ["light", "dark"]) {
        for (const width of [1280, 390]) {
          const { page } = await open(path, { colorScheme, viewport: { width, height: 900 } });
          await page.screenshot({ path: `${folder}/${name}-${colorScheme}-${width}.png`, fullPage: true });
          await page.context().close();
        }
      }
    }
    return Object.keys(pages);
  },
};

try {
  const job = JSON.parse(readFileSync(0, "utf-8"));
  process.stdout.write(JSON.stringify(await commands[job.command](job)));
} finally {
  await browser.close();
}
