// Finds the one disk that was planned for and writes its number into the answer file. Setup's number of a disk is the one
// that Win32_DiskDrive has. JScript of 1999, as Windows PE has it: no trim, no map, no indexOf of arrays.
function graphic(text) {
  return text === null ? "" : String(text).replace(/[^!-~]/g, "");
}

function fits(disk) {
  var serial = graphic(disk.SerialNumber);
  // Of an NVMe disk Windows takes the EUI-64 or NGUID for a serial number, where it has one.
  var named = want.serial !== "" && serial === want.serial;
  named = named || (want.eui !== "" && serial.toUpperCase() === want.eui);
  if (want.bytes === 0) {
    return named;
  }
  // WMI counts in whole cylinders of 255 heads and 63 sectors, so up to one cylinder is missing.
  var size = Number(disk.Size);
  return named && size <= want.bytes && want.bytes - size < 16065 * Number(disk.BytesPerSector);
}

var found = [];
var seen = "";
var disks = new Enumerator(GetObject("winmgmts:\\\\.\\root\\cimv2").ExecQuery("SELECT * FROM Win32_DiskDrive"));
for (; !disks.atEnd(); disks.moveNext()) {
  var disk = disks.item();
  seen += "\r\n  disk " + disk.Index + ", serial number " + graphic(disk.SerialNumber) + ", " + disk.Size + " bytes";
  if (fits(disk)) {
    found.push(disk.Index);
  }
}
if (found.length !== 1) {
  WScript.Echo("rackbar: " + found.length + " disks are the one that was planned for; nothing is touched:" + seen);
  WScript.Quit(1);
} else {
  var files = new ActiveXObject("Scripting.FileSystemObject");
  var reader = files.OpenTextFile("X:\\Windows\\System32\\autounattend.xml", 1);
  var answers = reader.ReadAll();
  reader.Close();
  var writer = files.CreateTextFile("X:\\rackbar.xml", true);
  writer.Write(answers.split("RACKBAR_DISK0").join(String(found[0])));
  writer.Close();
}
