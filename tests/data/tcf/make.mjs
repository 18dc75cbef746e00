// Makes strings.json with the reference implementation of the TC string, for tests/visitor/test_tcf.py.
//   npm install @iabtcf/core@1.5.6 && node make.mjs > strings.json
// The tests read the committed strings.json and need no node.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { GVL, TCModel, TCString, PurposeRestriction, Segment } = require("@iabtcf/core");
const { version } = JSON.parse(
  require("node:fs").readFileSync(
    require.resolve("@iabtcf/core").replace(/lib.*/, "package.json"), "utf8"));

// A vendor list of our own: 1,500 vendors, each with consent purposes 1, 3, 4 and the flexible 7.
const vendors = {};
for (let id = 1; id <= 1500; id++) {
  vendors[id] = {
    id, name: `Vendor ${id}`, purposes: [1, 3, 4, 7], legIntPurposes: [2, 9], flexiblePurposes: [2, 7],
    specialPurposes: [], features: [], specialFeatures: [], policyUrl: "https://vendor.example/",
    usesCookies: true, cookieMaxAgeSeconds: 1, usesNonCookieAccess: false, overflow: { httpGetLimit: 32 },
  };
}
const purposes = {};
for (let id = 1; id <= 11; id++) purposes[id] = { id, name: `${id}`, description: "", illustrations: [] };
const list = {
  gvlSpecificationVersion: 3, vendorListVersion: 48, tcfPolicyVersion: 5, lastUpdated: "2026-01-01T00:00:00Z",
  purposes, specialPurposes: {}, features: {}, specialFeatures: { 1: { id: 1 }, 2: { id: 2 } }, stacks: {}, vendors,
};

const every = (step, to) => Array.from({ length: Math.floor(to / step) }, (_, i) => (i + 1) * step);
const cases = [];

function add(name, expected, { to = 1500, consents = [], purposes = [1, 3, 4, 7], li = [], liPurposes = [],
    disclosed, sevenByInterest = false, restrictions = [], policy = 5, service = true, segments, oneTreatment = false, options } = {}) {
  const gvl = new GVL({ ...list, tcfPolicyVersion: policy,
    vendors: Object.fromEntries(Object.entries(vendors).filter(([id]) => id <= to).map(([id, vendor]) =>
      [id, sevenByInterest ? { ...vendor, purposes: [1, 3, 4], legIntPurposes: [2, 7, 9] } : vendor])) });
  const model = new TCModel(gvl);
  model.cmpId = 31;
  model.cmpVersion = 4;
  model.consentScreen = 1;
  model.isServiceSpecific = service;
  model.publisherCountryCode = "DE";
  model.purposeOneTreatment = oneTreatment;
  model.created = model.lastUpdated = new Date("2026-03-02T00:00:00Z");
  model.policyVersion = policy;
  model.vendorConsents.set(consents);
  model.purposeConsents.set(purposes);
  model.vendorLegitimateInterests.set(li);
  model.purposeLegitimateInterests.set(liPurposes);
  for (const [vendor, purposeId, restrictionType] of restrictions) {
    model.publisherRestrictions.add(vendor, new PurposeRestriction(purposeId, restrictionType));
  }
  if (disclosed) gvl.narrowVendorsTo(disclosed);
  const text = TCString.encode(model, segments ? { segments, ...options } : options);
  cases.push({ name, expected, string: text });
  if (expected === "invalid") return;
  // What the reference implementation itself reads must agree with what the test expects.
  const read = TCString.decode(text);
  const barred = read.publisherRestrictions.getRestrictions(130).some((one) =>
    [1, 7].includes(one.purposeId) && one.restrictionType !== 1);
  const given = read.vendorConsents.has(130) && read.purposeConsents.has(1) && read.purposeConsents.has(7);
  if ((given && !barred) !== expected) throw new Error(`${name}: the reference reads ${given}, barred ${barred}`);
}

const S = Segment;
const both = [S.CORE, S.VENDORS_DISCLOSED];
const all = [S.CORE, S.VENDORS_DISCLOSED, S.PUBLISHER_TC];

add("130 alone", true, { consents: [130] });
add("nobody", false);
add("129 and 131, not 130", false, { consents: [129, 131] });
add("all vendors, one range", true, { consents: every(1, 1500) });
add("all vendors, 2.3 segments", true, { consents: every(1, 1500), segments: all });
add("every second vendor, bit field", true, { consents: every(2, 1500) });
add("every third vendor, bit field", false, { consents: every(3, 1500) });
add("every tenth vendor", true, { consents: every(10, 1500) });
add("130 and 1400, range encoding of singles", true, { consents: [130, 1400] });
add("100 to 129 and 131 to 1500, two ranges", false, { consents: every(1, 1500).filter((id) => id >= 100 && id !== 130) });
add("1 to 130, a range that ends at 130", true, { consents: every(1, 1500).filter((id) => id <= 130 || id === 1500) });
add("130 to 900, a range that starts at 130", true, { consents: every(1, 1500).filter((id) => id >= 130 && id <= 900) });
add("131 to 900, a range that starts after 130", false, { consents: every(1, 1500).filter((id) => id >= 131 && id <= 900) });
add("a list that ends before 130", false, { to: 60, consents: every(1, 60) });
add("a list that ends at 130", true, { to: 130, consents: every(1, 130) });
add("130 without purposes", false, { consents: [130], purposes: [] });
add("130 without purpose 1", false, { consents: [130], purposes: [3, 4, 7] });
add("130 without purpose 7", false, { consents: [130], purposes: [1, 3, 4] });
add("130 with purposes 1 and 7 only", true, { consents: [130], purposes: [1, 7] });
add("purposes by legitimate interest only", false, { consents: [130], purposes: [1], li: [130], liPurposes: [2, 7] });
add("vendor by legitimate interest only", false, { li: [130], liPurposes: [2, 7, 9] });
add("legitimate interest of many beside consent, ranges", true, { consents: [130], li: every(1, 1500), liPurposes: [2, 7, 9] });
add("legitimate interest of many beside consent, bit field", true, { consents: [130], li: every(2, 1500), liPurposes: [2, 7, 9] });
add("legitimate interest of scattered vendors", true, { consents: every(1, 800), li: every(97, 1500), liPurposes: [2, 9] });
add("restriction: 7 not allowed for 130", false, { consents: [130, 200], restrictions: [[130, 7, 0]] });
add("restriction: 1 not allowed for 130", false, { consents: [130, 200], restrictions: [[130, 1, 0]] });
add("restriction: 7 not allowed for others", true, { consents: [130, 200], restrictions: [[129, 7, 0], [131, 7, 0]] });
add("restriction: 3 not allowed for 130", true, { consents: [130], restrictions: [[130, 3, 0]] });
add("restriction: 7 requires consent", true, { consents: [130], sevenByInterest: true, restrictions: [[130, 7, 1]] });
add("restriction: 7 requires legitimate interest", false, { consents: [130], restrictions: [[130, 7, 2]] });
add("restriction: 7 not allowed for 100 to 200", false, { consents: every(1, 1500), restrictions: every(1, 200).filter((id) => id >= 100).map((id) => [id, 7, 0]) });
add("restriction: 7 not allowed for 131 to 300", true, { consents: every(1, 1500), restrictions: every(1, 300).filter((id) => id >= 131).map((id) => [id, 7, 0]) });
add("restrictions: many, the last one names 130", false, { consents: every(1, 1500), restrictions: [[5, 1, 0], [6, 2, 1], [9, 3, 0], [12, 4, 0], [130, 7, 0]] });
add("restriction after legitimate interest of many", false, { consents: every(2, 1500), li: every(3, 1500), liPurposes: [2, 9], restrictions: [[130, 7, 0]] });
add("disclosed: 130 among few", true, { consents: [130], disclosed: [5, 130, 900], segments: both });
add("disclosed: publisher segment first", true, { consents: [130], disclosed: [5, 130, 900], segments: [S.CORE, S.PUBLISHER_TC, S.VENDORS_DISCLOSED] });
add("publisher segment only (2.2)", true, { consents: [130], segments: [S.CORE, S.PUBLISHER_TC] });
add("policy of TCF 2.2", true, { consents: [130], policy: 4 });
add("policy before TCF 2.2", "invalid", { consents: [130], policy: 2 });
add("global scope", "invalid", { consents: [130], service: false, segments: both });
add("global scope with allowed vendors", "invalid", { consents: [130], service: false, segments: [S.CORE, S.VENDORS_DISCLOSED, S.VENDORS_ALLOWED] });
add("purpose 1 not asked in this country", false, { consents: [130], purposes: [3, 4, 7], oneTreatment: true });
add("version 1", "invalid", { consents: [130], options: { version: 1 } });

// The encoder sets the consents of undisclosed vendors to no; joining two strings makes the contradiction.
const core = cases.find((one) => one.name === "130 alone").string.split(".")[0];
const few = (() => {
  add("disclosed: few, without 130", false, { consents: [5], disclosed: [5, 900], segments: both });
  return cases.at(-1).string.split(".")[1];
})();
cases.push({ name: "disclosed: consent for 130, which was never shown", expected: false, string: `${core}.${few}` });

process.stdout.write(JSON.stringify({ made_by: `@iabtcf/core ${version}`, vendor: 130, purposes: [1, 7], cases }, null, 1) + "\n");
