/** The page: every part is put in its place, and then told what there is. */

import { askForKeysBy } from "./api.js";
import { restoreChosen } from "./chosen.js";
import { digits } from "./digits.js";
import { drawer } from "./drawer.js";
import { lossChart } from "./loss-chart.js";
import { header } from "./header.js";
import { watchHealth } from "./health.js";
import { translate } from "./i18n.js";
import { followJobs } from "./jobs-feed.js";
import { jobsTable } from "./jobs-table.js";
import { askForKey } from "./keys.js";
import { readMetrics } from "./metrics.js";
import { followModels } from "./models.js";
import { modelsTable } from "./models-table.js";
import { complain } from "./notices.js";
import { pictures } from "./pictures.js";
import { rankProfile } from "./profile.js";
import { followSystem } from "./theme.js";
import { tiles } from "./tiles.js";
import { welcome } from "./welcome.js";

// Each part by the id of its place in index.html; a new panel is a section there and a line here.
const PARTS = {
  header,
  tiles,
  welcome,
  chart: lossChart,
  profile: rankProfile,
  jobs: jobsTable,
  models: modelsTable,
  pictures,
  digits,
  drawer,
};

translate();
followSystem();
askForKeysBy(askForKey);
restoreChosen();
followJobs();
followModels().catch(complain);
for (const [place, part] of Object.entries(PARTS)) part(document.getElementById(place));
watchHealth();
readMetrics();
