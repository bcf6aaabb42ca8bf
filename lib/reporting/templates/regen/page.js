// The only script of these pages: sorts tables, filters rows, copies citations. It loads nothing and keeps nothing.
(() => {
  const number = (cell) => (cell?.dataset.value === undefined || cell.dataset.value === '' ? NaN : Number(cell.dataset.value));
  const text = (cell) => (cell ? cell.textContent.trim() : '');

  function compare(a, b, column, sign) {
    const [x, y] = [number(a.cells[column]), number(b.cells[column])];
    if (Number.isNaN(x) && Number.isNaN(y)) return sign * text(a.cells[column]).localeCompare(text(b.cells[column]), 'en');
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1; // what was not measured comes last
    return sign * (x - y);
  }

  for (const table of document.querySelectorAll('table.sortable')) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener('click', () => {
        const descending = head.getAttribute('aria-sort') === 'ascending';
        heads.forEach((other) => other.removeAttribute('aria-sort'));
        head.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => compare(a, b, column, descending ? -1 : 1));
        table.tBodies[0].append(...rows);
      });
    });
  }

  for (const form of document.querySelectorAll('form.filters')) {
    const rows = [...document.querySelectorAll(`#${form.dataset.rows} tbody tr`)];
    const told = form.querySelector('output');
    const show = () => {
      const wanted = [...form.querySelectorAll('select')].filter((select) => select.value);
      const words = form.querySelector('input').value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const fits = wanted.every((select) => row.dataset[select.name] === select.value)
          && words.every((word) => row.textContent.toLowerCase().includes(word));
        row.hidden = !fits;
        shown += fits;
      }
      told.value = `${shown} of ${rows.length} shown`;
    };
    form.hidden = false;
    form.addEventListener('input', show);
    form.addEventListener('submit', (event) => event.preventDefault());
    const asked = new URLSearchParams(location.hash.slice(1)); // as in claims.html#paper=gan2014&verdict=partly
    for (const select of form.querySelectorAll('select')) {
      if ([...select.options].some((option) => option.value === asked.get(select.name))) select.value = asked.get(select.name);
    }
    show();
  }

  for (const button of document.querySelectorAll('button.copy')) {
    button.hidden = false;
    button.addEventListener('click', async () => {
      const source = button.parentElement.querySelector('.copied');
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch { // not allowed here: select it, so that the reader's own keys copy it
        getSelection().selectAllChildren(source);
        document.execCommand('copy');
      }
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 2000);
    });
  }
})();
