"use strict";
// Sorting and filtering by DataTables; a table of a screen or two stays whole, a long one is shown in parts.
for (const table of document.querySelectorAll("table.data")) {
  const rows = table.tBodies[0].rows.length, long = rows > 200;
  if (rows < 2) continue;
  const made = new DataTable(table, {
    paging: long,
    pageLength: 100,
    lengthChange: false,
    info: true,
    order: [],
    autoWidth: false,
    layout: { topStart: "search", topEnd: "info", bottomStart: null, bottomEnd: long ? "paging" : null },
    language: { search: "Filter", info: "_TOTAL_ rows", infoEmpty: "no row", infoFiltered: "of _MAX_", zeroRecords: "no such row" },
  });
  made.table().container().querySelector("input").setAttribute("aria-label", "Filter " + table.dataset.name);
  if (long) {
    addEventListener("beforeprint", () => made.page.len(-1).draw());
    addEventListener("afterprint", () => made.page.len(100).draw());
  }
}
